# Everything a person can do with Tauon. `make up` is all you need to start.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python manage.py

# A wait that ran out may be a busy machine: it is tried once more, and the summary names it. A wrong answer never is.
ONCE_MORE := --reruns 1 --only-rerun "did not happen within" --only-rerun "Timeout" --only-rerun "function monotonic"

.PHONY: help up demo install install-dev test lint types chaos screens bench clean

help: ## what can I do here?
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

up: install ## run everything: console, endpoints, workers, database, Redis
	@$(RUN) up $(ARGS)

demo: install ## the same, with a demo tenant whose data, training, model and endpoint were really run
	@$(RUN) up --demo $(ARGS)

install: $(VENV)/.installed ## make .venv and install what is needed
install-dev: $(VENV)/.installed-dev

$(VENV)/.installed: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON) here. Install Python 3.11 or newer, or name yours: make up PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Tauon needs Python 3.11 or newer; here is $$($(PYTHON) --version 2>&1 | head -n 1). Try: make up PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv module is missing. Run: sudo apt-get install -y python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing (a few minutes the first time) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e . || { echo "The installation failed; the lines above say why. Mend it and run the same command again."; exit 1; }
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[dev]"
	@touch $@

test: install-dev ## every test: unit, DDP, browser, journeys, contracts
	@$(BIN)/python -m tests.chromium
	@$(BIN)/python -m pytest -q -n 2 --dist loadgroup -rfER $(ONCE_MORE) $(ARGS)

lint: install-dev ## ruff, mypy, import contracts, missing migrations, deploy check
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy console tenants billing jobs trainer
	@$(RUN) makemigrations --check --dry-run
	@TAUON_URL=https://tauon.example.org TAUON_HOSTS=tauon.example.org TAUON_SECRET_KEY=$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(60))') TAUON_MASTER_KEY=check TAUON_EMAIL_BACKEND=django.core.mail.backends.smtp.EmailBackend TAUON_EMAIL_VERIFICATION=mandatory $(RUN) check --deploy --fail-level WARNING

chaos: install-dev ## kill things on purpose
	@TAUON_KILLS=200 $(BIN)/python -m pytest -q -rP -m chaos $(ARGS)

screens: install-dev ## screenshots of every page into var/screens/
	@$(BIN)/python -m tests.chromium
	@$(RUN) screens $(ARGS)

bench: install-dev ## measure: make bench NAME=training
	@test -n "$(NAME)" || { echo "Which one? make bench NAME=training|compression|serving|billing"; exit 1; }
	@$(BIN)/python -m bench.$(NAME) $(ARGS)
	@$(BIN)/python -m bench.report

clean: ## delete what was made at run time, data included
	@echo "This deletes var/ with all data. Type yes:" && read answer && if [ "$$answer" = yes ]; then $(BIN)/python -m console.embedded destroy; else echo "Nothing was deleted."; fi
