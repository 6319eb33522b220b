/* The shell's behaviour: theme, dialogs, menus, palette, toasts, copying, local times. Pages work without it. */
(() => {
  "use strict";

  const root = document.documentElement;
  const wordsEl = document.getElementById("ui-words");
  const words = wordsEl ? JSON.parse(wordsEl.textContent) || {} : {};
  const word = (key, values = {}) =>
    (words[key] ?? key).replace(/%\((\w+)\)s/g, (_, name) => values[name] ?? "");

  /* -- numbers as the server writes them ------------------------------------------------------------------- */
  const SIGNS = { USD: "$", EUR: "€", GBP: "£", CNY: "¥", JPY: "¥" };
  const grouped = (value, least, most) =>
    value.toLocaleString("en-US", { minimumFractionDigits: least, maximumFractionDigits: most });
  const format = {
    number(value) {
      const n = Number(value);
      if (value === null || value === "" || !Number.isFinite(n)) return "–";
      if (n !== 0 && (Math.abs(n) < 1e-6 || Math.abs(n) >= 1e12)) return n.toExponential(2);
      return grouped(n, 0, Math.max(0, Math.min(6, 3 - Math.floor(Math.log10(Math.abs(n) || 1)))));
    },
    money(value, currency = "USD") {
      const n = Number(value);
      if (value === null || value === "" || !Number.isFinite(n)) return "–";
      const size = Math.abs(n);
      if (size && size < 1e-8) return `< ${format.money(1e-8, currency)}`;
      const places = size && size < 0.01 ? Math.min(8, 1 - Math.floor(Math.log10(size))) : currency === "JPY" ? 0 : 2;
      const sign = SIGNS[currency] ?? `${currency} `;
      return `${n < 0 ? "−" : ""}${sign}${grouped(size, places, places)}`;
    },
    bytes(value) {
      let n = Number(value);
      if (value === null || !Number.isFinite(n)) return "–";
      const units = ["B", "KiB", "MiB", "GiB", "TiB"];
      let unit = 0;
      while (Math.abs(n) >= 1024 && unit < units.length - 1) { n /= 1024; unit += 1; }
      const places = unit === 0 || Math.abs(n) >= 100 ? 0 : 1;
      return `${grouped(n, places, places)} ${units[unit]}`;
    },
    duration(value) {
      const n = Number(value);
      if (value === null || value === "" || !Number.isFinite(n)) return "–";
      if (n < 10) return word("%(n)s s", { n: grouped(Math.max(0, n), 0, 1) });
      let rest = Math.floor(n);
      const parts = [[86400, "%(n)s d"], [3600, "%(n)s h"], [60, "%(n)s m"], [1, "%(n)s s"]].map(([size, key]) => {
        const count = Math.floor(rest / size);
        rest -= count * size;
        return [count, key];
      });
      const first = parts.findIndex(([count]) => count);
      return parts.slice(first, first + 2).filter(([count]) => count).map(([n2, key]) => word(key, { n: n2 })).join(" ");
    },
  };

  /* -- toasts ---------------------------------------------------------------------------------------------- */
  const toasts = document.getElementById("toasts");
  function arm(node) {
    const bad = node.dataset.tone === "bad" || node.dataset.tone === "warn";
    if (!bad) setTimeout(() => node.remove(), 7000);
  }
  function toast(text, tone = "info") {
    const template = document.getElementById(`toast-${tone}`) || document.getElementById("toast-info");
    if (!toasts || !template) return;
    const node = template.content.firstElementChild.cloneNode(true);
    node.querySelector("p").textContent = text;
    toasts.append(node);
    arm(node);
    while (toasts.children.length > 4) toasts.firstElementChild.remove();
  }
  if (toasts) [...toasts.children].forEach(arm);
  document.addEventListener("toast", (event) => toast(event.detail.text ?? event.detail.value, event.detail.tone));

  /* -- theme: a cookie, so that the server renders the right one at once ----------------------------------- */
  function setTheme(theme) {
    root.dataset.theme = theme;
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `theme=${theme}; Path=/; Max-Age=31536000; SameSite=Lax${secure}`;
    document.querySelectorAll("[data-theme-set]").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset.themeSet === theme));
      if (button.dataset.themeSet === theme) {
        const mark = button.closest("details")?.querySelector("summary svg");
        if (mark) mark.replaceWith(button.querySelector("svg").cloneNode(true));
      }
    });
    document.dispatchEvent(new CustomEvent("themechange"));
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
    document.dispatchEvent(new CustomEvent("themechange")));

  /* -- dialogs --------------------------------------------------------------------------------------------- */
  function openDialog(dialog) {
    if (!dialog || dialog.open) return;
    dialog.showModal();
    (dialog.querySelector("[autofocus], [aria-invalid=true], .dialog-body :is(input:not([type=hidden]), select, textarea)")
      || dialog.querySelector("[data-close]"))?.focus();
  }

  /* -- palette --------------------------------------------------------------------------------------------- */
  const palette = document.getElementById("palette");
  const query = document.getElementById("palette-q");
  const list = document.getElementById("palette-list");
  function openPalette() {
    if (!palette) return;
    openDialog(palette);
    query.select();
    document.body.dispatchEvent(new CustomEvent("palette"));
  }
  function mark(option) {
    list.querySelectorAll("[aria-selected]").forEach((one) => one.setAttribute("aria-selected", "false"));
    if (!option) { query.removeAttribute("aria-activedescendant"); return; }
    option.setAttribute("aria-selected", "true");
    query.setAttribute("aria-activedescendant", option.id);
    option.scrollIntoView({ block: "nearest" });
  }
  query?.addEventListener("keydown", (event) => {
    const options = [...list.querySelectorAll("[role=option]")];
    const at = options.findIndex((one) => one.getAttribute("aria-selected") === "true");
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const step = event.key === "ArrowDown" ? 1 : -1;
      mark(options[(at + step + options.length) % options.length]);
    } else if (event.key === "Enter" && at >= 0) {
      event.preventDefault();
      options[at].click();
    }
  });
  list?.addEventListener("htmx:afterSwap", () => mark(list.querySelector("[role=option]")));

  /* -- clicks, keys ---------------------------------------------------------------------------------------- */
  document.addEventListener("click", (event) => {
    const target = event.target.closest("[data-dialog], [data-close], [data-dismiss], [data-theme-set], [data-palette]");
    document.querySelectorAll("details.menu[open]").forEach((menu) => {
      if (!menu.contains(event.target) || event.target.closest("[data-theme-set], .menu-list a, .menu-list [data-dialog]")) menu.open = false;
    });
    if (!target) {
      // a click on the backdrop closes what can be closed without losing anything
      if (event.target === palette) palette.close();
      return;
    }
    if (target.dataset.dialog) { event.preventDefault(); openDialog(document.getElementById(target.dataset.dialog)); }
    else if ("close" in target.dataset) target.closest("dialog")?.close();
    else if ("dismiss" in target.dataset) target.closest(".toast, .banner, .card")?.remove();
    else if (target.dataset.themeSet) setTheme(target.dataset.themeSet);
    else if (!event.ctrlKey && !event.metaKey) { event.preventDefault(); openPalette(); }
  });
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") { event.preventDefault(); openPalette(); return; }
    if (event.key === "Escape") {
      const menu = document.querySelector("details.menu[open]");
      if (menu) { menu.open = false; menu.querySelector("summary").focus(); }
    }
    if (event.key === "/" && !event.target.closest?.("input, textarea, select, [contenteditable], dialog")) {
      const filter = document.querySelector("main input[type=search]");
      if (filter) { event.preventDefault(); filter.focus(); }
    }
  });

  /* -- forms ----------------------------------------------------------------------------------------------- */
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (event.defaultPrevented || form.method === "dialog" || form.hasAttribute("hx-post")) return;
    if ("busy" in form.dataset && event.submitter) setTimeout(() => { event.submitter.disabled = true; });
  });
  addEventListener("pageshow", (event) => {
    // coming back from the history must not leave a button dead
    if (event.persisted) document.querySelectorAll("form[data-busy] :disabled").forEach((one) => { one.disabled = false; });
  });
  document.addEventListener("change", (event) => {
    const form = event.target.closest?.("form[data-autosubmit]");
    if (form) form.requestSubmit();
    if (event.target.matches?.(".dropzone input[type=file]")) {
      const name = event.target.closest(".dropzone").querySelector("[data-file-name]");
      const files = [...event.target.files];
      if (name) name.textContent = files.map((f) => `${f.name} (${format.bytes(f.size)})`).join(", ");
    }
  });
  for (const [kind, over] of [["dragenter", true], ["dragover", true], ["dragleave", false], ["drop", false]]) {
    document.addEventListener(kind, (event) => event.target.closest?.(".dropzone")?.toggleAttribute("data-over", over));
  }

  /* -- htmx ------------------------------------------------------------------------------------------------ */
  document.addEventListener("htmx:configRequest", (event) => {
    const token = document.querySelector("input[name=csrfmiddlewaretoken]")?.value;
    if (token && event.detail.verb !== "get") event.detail.headers["X-CSRFToken"] = token;
  });
  document.addEventListener("htmx:responseError", (event) => {
    let said = "";
    try { said = JSON.parse(event.detail.xhr.responseText).detail; } catch { /* a page, not a problem document */ }
    toast(said || word("The server could not do this (%(status)s). Try again.", { status: event.detail.xhr.status }), "bad");
  });
  document.addEventListener("htmx:sendError", () => toast(word("The server cannot be reached. Check the connection."), "bad"));

  /* -- elements -------------------------------------------------------------------------------------------- */
  class CopyButton extends HTMLElement {
    connectedCallback() {
      this.onclick = async () => {
        const text = this.dataset.text || document.getElementById(this.dataset.from)?.textContent || "";
        try { await navigator.clipboard.writeText(text); }
        catch { if (!copyByHand(text)) { toast(word("Copying is not allowed here. Select the text instead."), "warn"); return; } }
        this.toggleAttribute("data-copied", true);
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.removeAttribute("data-copied"), 1600);
      };
    }
    disconnectedCallback() { clearTimeout(this.timer); this.onclick = null; }
  }
  // plain http on another address has no clipboard API
  function copyByHand(text) {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "sr";
    (document.querySelector("dialog[open]") || document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }

  const UNITS = [["year", 31536000], ["month", 2592000], ["day", 86400], ["hour", 3600], ["minute", 60]];
  const relative = new Intl.RelativeTimeFormat(root.lang || "en", { numeric: "always" });
  const dates = (root.lang || "en") === "en" ? "en-GB" : root.lang; // 23 Nov 2026, 16:12, as the server writes it
  const exact = new Intl.DateTimeFormat(dates, { dateStyle: "medium", timeStyle: "short" });
  const second = new Intl.DateTimeFormat(dates, { dateStyle: "medium", timeStyle: "medium" });
  class LocalTime extends HTMLElement {
    connectedCallback() {
      this.show();
      LocalTime.all.add(this);
    }
    disconnectedCallback() { LocalTime.all.delete(this); }
    show() {
      const when = new Date(this.getAttribute("datetime"));
      const time = this.querySelector("time");
      if (!time || Number.isNaN(when.getTime())) return;
      const utc = `${when.toISOString().slice(0, 19).replace("T", " ")} UTC`;
      time.title = `${exact.format(when)} · ${utc}`;
      const mode = this.getAttribute("mode");
      if (mode !== "ago") { time.textContent = (mode === "second" ? second : exact).format(when); return; }
      const seconds = (when.getTime() - Date.now()) / 1000;
      if (Math.abs(seconds) < 45) { time.textContent = word("just now"); return; }
      const [unit, size] = UNITS.find(([, s]) => Math.abs(seconds) >= s) || UNITS.at(-1);
      time.textContent = relative.format(Math.round(seconds / size) || Math.sign(seconds), unit);
    }
  }
  LocalTime.all = new Set();
  setInterval(() => LocalTime.all.forEach((one) => one.show()), 30000);

  window.tauon = { word, format, toast, openDialog, openPalette };
  customElements.define("copy-button", CopyButton);
  customElements.define("local-time", LocalTime);
  document.querySelectorAll(".tabs [aria-current]").forEach((tab) => { tab.parentElement.scrollLeft = tab.offsetLeft - tab.parentElement.offsetLeft - 24; });
  document.querySelectorAll("dialog[data-open]").forEach(openDialog);
  document.querySelector("[data-focus]")?.focus();
})();
