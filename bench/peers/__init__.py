"""The same model behind other servers, each as its own documentation shows it. Run by bench.serving in own venvs."""
