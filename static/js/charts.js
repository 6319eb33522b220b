/* <line-chart>: uPlot with a live legend, smoothing, log axis, synced cursors and a table. No inline styles. */
(() => {
  "use strict";

  const REPAINT_MS = 100;
  const TABLE_ROWS = 200;
  const SMOOTH_FROM = 20; // fewer points than this are drawn as they are
  const COLOURS = 6;
  const HUGE = 1e12; // beyond this a linear axis has no ticks
  const word = (key, values) => window.tauon?.word(key, values) ?? key;
  const numberText = (value) => window.tauon?.format.number(value) ?? String(value);
  const percentText = (value) => (Number.isFinite(Number(value)) ? `${numberText(Math.round(value * 1000) / 10)} %` : numberText(value));
  const probe = document.createElement("i");

  // a token may be light-dark(); only a computed colour is a colour a canvas understands
  function colour(host, name) {
    probe.hidden = true;
    host.append(probe);
    probe.style.color = `var(--${name})`;
    const value = getComputedStyle(probe).color;
    probe.remove();
    return value;
  }
  function faded(value, alpha) {
    const parts = value.match(/[\d.]+/g);
    return parts ? `rgba(${parts[0]}, ${parts[1]}, ${parts[2]}, ${alpha})` : value;
  }
  /* exponential average without the pull of its start */
  function smooth(values, weight) {
    let last = 0;
    let count = 0;
    return values.map((value) => {
      if (value === null || value === undefined || Number.isNaN(value)) return value;
      last = last * weight + (1 - weight) * value;
      count += 1;
      return last / (1 - weight ** count);
    });
  }

  class LineChart extends HTMLElement {
    connectedCallback() {
      if (this.ready) { this.paintSoon(); return; }
      this.ready = true;
      this.series = this.series || new Map(); // name -> {xs, ys}
      this.log = this.dataset.log === "on";
      this.weight = Number(this.dataset.smooth ?? 0.6);
      this.say = "percent" in this.dataset ? percentText : numberText; // how a value is written
      this.spoken = 0;
      this.build();
      this.resize = new ResizeObserver(() => {
        const width = this.plotEl.clientWidth;
        if (this.plot && width && width !== this.plot.width) this.plot.setSize({ width, height: this.plotEl.clientHeight });
      });
      this.resize.observe(this.plotEl);
      this.retheme = () => { this.drop(); this.paintSoon(); };
      document.addEventListener("themechange", this.retheme);
      const source = this.dataset.source && document.getElementById(this.dataset.source);
      if (source) this.setData(JSON.parse(source.textContent));
      this.paintSoon();
    }

    disconnectedCallback() {
      // an element that is moved is connected again in the same turn
      queueMicrotask(() => {
        if (this.isConnected) return;
        clearTimeout(this.timer);
        this.resize?.disconnect();
        document.removeEventListener("themechange", this.retheme);
        this.drop();
        this.replaceChildren();
        this.ready = false;
        this.timer = null;
      });
    }

    /* -- data ---------------------------------------------------------------------------------------------- */
    setData(data) {
      this.series = new Map();
      for (const [name, points] of Object.entries(data || {})) {
        for (const [x, y] of points) this.put(name, x, y);
      }
      this.paintSoon();
    }

    push(name, x, y) {
      this.put(name, x, y);
      this.paintSoon();
    }

    put(name, x, y) {
      this.series ||= new Map();
      if (!this.series.has(name)) this.series.set(name, { xs: [], ys: [] });
      const { xs, ys } = this.series.get(name);
      const value = y === null || y === undefined ? null : Number(y);
      const at = Number(x);
      if (!Number.isFinite(at)) return;
      if (!xs.length || at > xs.at(-1)) { xs.push(at); ys.push(value); return; }
      let low = 0;
      let high = xs.length - 1;
      while (low < high) { const mid = (low + high) >> 1; if (xs[mid] < at) low = mid + 1; else high = mid; }
      if (xs[low] === at) ys[low] = value;
      else { xs.splice(low, 0, at); ys.splice(low, 0, value); }
    }

    /* one column of x for all series; uPlot draws gaps over undefined and breaks at null */
    aligned() {
      const all = [...this.series.values()];
      if (all.length === 1) return [all[0].xs, all[0].ys];
      const xs = [...new Set(all.flatMap((one) => one.xs))].sort((a, b) => a - b);
      const at = new Map(xs.map((x, i) => [x, i]));
      return [xs, ...all.map((one) => {
        const column = new Array(xs.length);
        one.xs.forEach((x, i) => { column[at.get(x)] = one.ys[i]; });
        return column;
      })];
    }

    /* -- building ------------------------------------------------------------------------------------------ */
    build() {
      const head = document.createElement("div");
      head.className = "chart-head";
      const title = document.createElement("div");
      title.className = "chart-title";
      title.textContent = this.dataset.title || "";
      if (this.dataset.unit) {
        const unit = document.createElement("span");
        unit.className = "unit";
        unit.textContent = ` ${this.dataset.unit}`;
        title.append(unit);
      }
      head.append(title);

      const select = document.createElement("select");
      select.setAttribute("aria-label", `${this.dataset.title}: ${word("Smoothing")}`);
      for (const [value, label] of [[0, "Raw"], [0.6, "Smooth"], [0.9, "Smoother"], [0.97, "Smoothest"]]) {
        const option = new Option(word(label), value, false, value === this.weight);
        select.append(option);
      }
      select.onchange = () => { this.weight = Number(select.value); this.drop(); this.paint(); };
      if (!("plain" in this.dataset)) head.append(select);
      if ("log" in this.dataset) {
        head.append(this.toggle("Log", this.log, (on) => { this.log = on; this.drop(); this.paint(); }));
      }
      head.append(this.toggle("Table", false, (on) => {
        this.tableEl.hidden = !on;
        this.plotEl.hidden = on;
        this.paint();
      }));

      this.plotEl = document.createElement("div");
      this.plotEl.className = "chart-plot";
      this.plotEl.setAttribute("aria-hidden", "true");
      this.legend = document.createElement("ul");
      this.legend.className = "chart-legend";
      this.legend.setAttribute("role", "list");
      this.tableEl = document.createElement("div");
      this.tableEl.className = "chart-table";
      this.tableEl.hidden = true;
      this.tableEl.tabIndex = 0;
      this.tableEl.setAttribute("role", "region");
      this.tableEl.setAttribute("aria-label", this.dataset.title || "");
      this.status = document.createElement("p");
      this.status.className = "sr";
      this.status.setAttribute("role", "status");
      this.replaceChildren(head, this.plotEl, this.tableEl, this.legend, this.status);
    }

    toggle(label, on, act) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "btn btn-s";
      button.textContent = word(label);
      button.setAttribute("aria-pressed", String(on));
      button.onclick = () => {
        const next = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(next));
        act(next);
      };
      return button;
    }

    /* -- painting ------------------------------------------------------------------------------------------ */
    paintSoon() {
      if (this.timer || !this.ready) return;
      const wait = Math.max(0, REPAINT_MS - (performance.now() - (this.painted || 0)));
      this.timer = setTimeout(() => {
        this.timer = null;
        if (document.hidden) { document.addEventListener("visibilitychange", () => this.paintSoon(), { once: true }); return; }
        this.paint();
      }, wait);
    }

    paint() {
      if (!this.ready) return;
      this.painted = performance.now();
      const names = [...this.series.keys()];
      if (!names.length) {
        this.drop();
        const none = document.createElement("div");
        none.className = "chart-none";
        none.textContent = this.dataset.none || word("Waiting for the first point");
        this.plotEl.replaceChildren(none);
        return;
      }
      const [xs, ...raw] = this.aligned();
      const columns = [];
      const doubled = raw.map((column, i) => this.weight > 0 && this.series.get(names[i]).xs.length >= SMOOTH_FROM);
      raw.forEach((column, i) => {
        columns.push(column);
        if (doubled[i]) columns.push(smooth(Array.from(column), this.weight));
      });
      this.steep = this.log || raw.some((column) => column.some((value) => Math.abs(value) > HUGE));
      const shape = `${names.join("\u0000")}|${doubled}|${this.steep}`;
      this.names = names;
      this.raw = raw;
      this.xs = xs;
      if (this.plot && this.shape === shape) {
        const { min, max } = this.plot.scales.x;
        const zoomed = this.zoomed && min !== undefined;
        this.plot.setData([xs, ...columns], !zoomed);
        if (zoomed) this.plot.redraw();
      } else if (this.plotEl.clientWidth) {
        this.drop();
        this.shape = shape;
        this.plotEl.replaceChildren();
        this.plot = new uPlot(this.options(names, doubled), [xs, ...columns], this.plotEl);
      }
      this.showLegend(this.plot?.cursor.idx);
      if (!this.tableEl.hidden) this.showTable();
      if (Date.now() - this.spoken > 10000) { this.spoken = Date.now(); this.status.textContent = this.sentence(); }
    }

    options(names, doubled) {
      const text = colour(this, "muted");
      const grid = colour(this, "grid");
      const font = `11px ${getComputedStyle(this).fontFamily}`;
      const series = [{}];
      names.forEach((name, i) => {
        const stroke = colour(this, `c${(i % COLOURS) + 1}`);
        const dash = i >= COLOURS ? [6, 4] : undefined;
        const few = this.series.get(name).xs.length < SMOOTH_FROM;
        const line = (more) => ({ label: name, width: 1.75, stroke, dash, spanGaps: false, ...more });
        if (doubled[i]) {
          series.push(line({ width: 1, stroke: faded(stroke, 0.33), points: { show: false } }));
          series.push(line({ points: { show: false } }));
        } else series.push(line({ points: few ? { show: true, size: 5, fill: stroke } : { show: false } }));
      });
      const axis = { stroke: text, font, grid: { stroke: grid, width: 1 }, ticks: { show: false } };
      return {
        width: this.plotEl.clientWidth,
        height: this.plotEl.clientHeight,
        legend: { show: false },
        padding: [8, 8, 0, 0],
        cursor: {
          sync: { key: this.dataset.sync || "step", scales: ["x", null], setSeries: false },
          drag: { x: true, y: false },
          points: { size: 6 },
        },
        scales: { x: { time: false }, y: { distr: this.steep ? 3 : 1 } },
        axes: [
          { ...axis, size: 26, label: this.dataset.x || word("Step"), labelSize: 16, labelFont: font, values: (u, ticks) => ticks.map((t) => numberText(t)) },
          { ...axis, size: 52, values: (u, ticks) => ticks.map((t) => (t === null ? "" : this.say(t))) },
        ],
        series,
        hooks: {
          setCursor: [(u) => this.showLegend(u.cursor.idx)],
          setSelect: [() => { this.zoomed = true; }],
          setScale: [(u, key) => {
            if (key === "x" && u.scales.x.min === u.data[0][0] && u.scales.x.max === u.data[0].at(-1)) this.zoomed = false;
          }],
        },
      };
    }

    /* the value under the cursor, else the last one */
    showLegend(index) {
      if (!this.names) return;
      while (this.legend.children.length > this.names.length) this.legend.lastElementChild.remove();
      this.names.forEach((name, i) => {
        let item = this.legend.children[i];
        if (!item) {
          item = document.createElement("li");
          const ns = "http://www.w3.org/2000/svg";
          const svg = document.createElementNS(ns, "svg");
          svg.setAttribute("viewBox", "0 0 16 8");
          svg.setAttribute("aria-hidden", "true");
          const line = document.createElementNS(ns, "line");
          for (const [k, v] of [["x1", 0], ["x2", 16], ["y1", 4], ["y2", 4], ["stroke", "currentColor"], ["stroke-width", 2.5], ["stroke-linecap", "round"]]) line.setAttribute(k, v);
          if (i >= COLOURS) line.setAttribute("stroke-dasharray", "4 3");
          svg.append(line);
          svg.style.color = `var(--c${(i % COLOURS) + 1})`;
          item.append(svg, document.createElement("span"), document.createElement("b"));
          this.legend.append(item);
        }
        const column = this.raw[i];
        let at = index ?? column.length - 1;
        while (at > 0 && (column[at] === undefined || column[at] === null)) at -= 1;
        item.children[1].textContent = name;
        item.children[2].textContent = this.say(column[at]);
      });
    }

    showTable() {
      const every = Math.max(1, Math.ceil(this.xs.length / TABLE_ROWS));
      const table = document.createElement("table");
      table.className = "table";
      const headRow = table.createTHead().insertRow();
      for (const label of [this.dataset.x || word("Step"), ...this.names]) {
        const cell = document.createElement("th");
        cell.scope = "col";
        cell.className = "num";
        cell.textContent = label;
        headRow.append(cell);
      }
      const body = table.createTBody();
      this.xs.forEach((x, i) => {
        if (i % every && i !== this.xs.length - 1) return;
        const row = body.insertRow();
        [x, ...this.raw.map((column) => column[i])].forEach((value, column) => {
          const cell = row.insertCell();
          cell.className = "num";
          cell.textContent = value === undefined || value === null ? "" : (column ? this.say : numberText)(value);
        });
      });
      this.tableEl.replaceChildren(table);
    }

    sentence() {
      const parts = this.names.map((name, i) => {
        const column = this.raw[i];
        let at = column.length - 1;
        while (at > 0 && (column[at] === undefined || column[at] === null)) at -= 1;
        return `${name} ${this.say(column[at])}`;
      });
      return `${this.dataset.title || ""}: ${parts.join(", ")} (${this.dataset.x || word("Step")} ${numberText(this.xs.at(-1))})`;
    }

    drop() {
      this.plot?.destroy();
      this.plot = null;
      this.shape = "";
    }
  }

  customElements.define("line-chart", LineChart);
})();
