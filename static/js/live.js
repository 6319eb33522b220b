/* <live-job>: follows one job over a websocket. The server rendered everything up to data-after; this only makes it move. */
(() => {
  "use strict";

  const LOG_LINES = 1000;
  const SERIES = { train: "Training", val: "Validation" };
  const FINAL = new Set(["succeeded", "failed", "cancelled"]);
  const word = (key, values) => window.tauon?.word(key, values) ?? key;
  const format = () => window.tauon.format;

  class LiveJob extends HTMLElement {
    connectedCallback() {
      this.last = Number(this.dataset.after || 0);
      this.points = Number(this.dataset.points || 0);
      this.tries = 0;
      this.lines = this.part("log")?.querySelectorAll(".log-line").length || 0;
      this.wake = () => { if (!this.socket && !this.over) { clearTimeout(this.timer); this.open(); } };
      if ("ended" in this.dataset) { this.finish(); return; }
      addEventListener("online", this.wake);
      this.open();
    }

    disconnectedCallback() {
      this.over = true;
      removeEventListener("online", this.wake);
      clearTimeout(this.timer);
      clearInterval(this.clock);
      this.socket?.close();
    }

    part(name) { return document.querySelector(`[data-live="${name}"]`); }

    /* -- the socket ---------------------------------------------------------------------------------------- */
    open() {
      const address = new URL(this.dataset.url, location.href);
      address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
      address.searchParams.set("after", this.last);
      this.state(this.tries ? "waiting" : "off");
      const socket = new WebSocket(address);
      this.socket = socket;
      socket.onopen = () => { this.tries = 0; this.state("live"); };
      socket.onmessage = (event) => this.take(JSON.parse(event.data));
      socket.onclose = (event) => {
        if (this.socket !== socket) return;
        this.socket = null;
        if (this.over) return;
        if (event.code === 4429) { this.over = true; this.state("off", "Too many live pages are open. Close some and reload."); return; }
        if (event.code === 4401 || event.code === 4404) { this.over = true; this.state("off", "Signed out"); return; }
        this.again();
      };
    }

    again() {
      this.state("waiting");
      const wait = Math.min(8000, 400 * 2 ** this.tries) * (0.7 + Math.random() * 0.6);
      this.tries += 1;
      this.timer = setTimeout(() => this.open(), wait);
    }

    take(message) {
      if (message.type === "events") this.events(message.events);
      else if (message.type === "job") this.show(message.job);
      else if (message.type === "end") this.finish(true);
      this.dispatchEvent(new CustomEvent(`live-job:${message.type}`, { bubbles: true, detail: message }));
    }

    finish(now) {
      this.over = true;
      this.state("off");
      clearInterval(this.clock);
      if (!now) return;
      const outcome = document.getElementById("job-outcome");
      if (outcome) outcome.hidden = false;
      document.body.dispatchEvent(new CustomEvent("live-job:ended"));
    }

    state(state, text) {
      this.dataset.state = state;
      const dot = this.part("dot");
      if (!dot) return;
      dot.dataset.state = state;
      dot.textContent = text ? word(text) : { live: word("Live"), waiting: word("Reconnecting…") }[state] || "";
    }

    /* -- events -------------------------------------------------------------------------------------------- */
    events(events) {
      for (const event of events) {
        if (event.seq <= this.last) continue; // said before the cut
        if (event.seq !== this.last + 1) { this.socket?.close(); return; } // a hole: ask again from where we are
        this.last = event.seq;
        if (event.kind === "metric") this.metric(event.data);
        else if (event.kind === "log" || event.kind === "error") this.line(event);
        if (event.kind !== "metric" && event.kind !== "progress") this.row(event);
      }
      this.dataset.lastSeq = this.last;
      this.dataset.points = this.points;
      const count = this.part("log-count");
      if (count) count.textContent = format().number(this.lines);
    }

    metric({ name, step, value }) {
      this.points += 1;
      const [part, what = part] = name.split(/\/(.*)/);
      const chart = this.querySelector(`line-chart[data-metric="${CSS.escape(what)}"]`);
      chart?.push?.(SERIES[part] ? word(SERIES[part]) : part, step, value);
      if (name === "train/loss") this.tile("loss", format().number(value));
      if (name === this.dataset.quality) this.tile("accuracy", `${format().number(Math.round(value * 1000) / 10)} %`);
    }

    line(event) {
      const log = this.part("log");
      if (!log) return;
      log.querySelector(".empty-log")?.remove();
      const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      const line = document.createElement("div");
      line.className = "log-line";
      line.id = `L${event.seq}`;
      line.dataset.level = event.kind === "error" ? "error" : event.data.level || "info";
      const number = document.createElement("a");
      number.href = `#L${event.seq}`;
      number.textContent = event.seq;
      const text = document.createElement("span");
      text.textContent = event.data.text || "";
      line.append(number, text);
      log.append(line);
      this.lines += 1;
      while (log.childElementCount > LOG_LINES) log.firstElementChild.remove();
      if (atEnd) log.scrollTop = log.scrollHeight;
    }

    row(event) {
      const table = this.part("events");
      if (!table) return;
      const row = table.insertRow(0);
      const cell = (content, className) => {
        const one = row.insertCell();
        if (className) one.className = className;
        one.append(content);
      };
      const tag = document.createElement("span");
      tag.className = "tag";
      tag.textContent = event.kind;
      const time = document.createElement("local-time");
      time.setAttribute("datetime", event.at);
      time.setAttribute("mode", "second");
      time.append(Object.assign(document.createElement("time"), { dateTime: event.at, textContent: event.at }));
      cell(String(event.seq), "num muted");
      cell(time, "nowrap");
      cell(tag);
      cell(event.text || "");
    }

    /* -- where the job stands ------------------------------------------------------------------------------ */
    show(job) {
      if (job.status !== this.dataset.status) {
        this.dataset.status = job.status;
        const badge = document.querySelector(`template[data-badge="${job.status}"]`);
        if (badge) this.part("badge")?.replaceChildren(badge.content.cloneNode(true));
        const stop = document.getElementById("job-stop");
        if (job.status === "stopping" && stop) stop.replaceChildren();
        if (job.status !== "queued") this.part("queue")?.replaceChildren();
      }
      const row = this.part("progress-row");
      if (row) row.hidden = job.status === "queued" && !job.total_steps;
      this.text("phase", job.phase || job.label);
      this.text("eta", job.eta_s ? word("about %(eta)s left", { eta: format().duration(Math.round(job.eta_s)) }) : "");
      const bar = this.part("progress");
      if (bar && job.total_steps) { bar.max = job.total_steps; bar.value = job.step; }
      if (job.total_steps) this.tile("step", `${format().number(job.step)} / ${format().number(job.total_steps)}`);
      const cost = format().money(job.cost, job.currency);
      this.tile("cost", cost);
      this.text("cost", cost);
      this.elapsed(job);
    }

    elapsed(job) {
      clearInterval(this.clock);
      if (job.elapsed_s === null) return;
      const from = performance.now() - job.elapsed_s * 1000;
      const tick = () => this.tile("elapsed", format().duration(Math.floor((performance.now() - from) / 1000)));
      if (FINAL.has(job.status)) { this.tile("elapsed", format().duration(job.elapsed_s)); return; }
      tick();
      this.clock = setInterval(tick, 1000);
    }

    text(name, value) {
      const part = this.part(name);
      if (part && part.textContent !== value) part.textContent = value;
    }

    tile(name, value) {
      const tile = document.getElementById(`tile-${name}`);
      if (tile && tile.textContent !== value) tile.textContent = value;
    }
  }

  customElements.define("live-job", LiveJob);
})();
