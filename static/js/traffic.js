/* <live-traffic> asks for the last numbers every few seconds; <share-slider> says where its handle stands. */
(() => {
  "use strict";

  const EVERY_MS = 5000;

  class LiveTraffic extends HTMLElement {
    connectedCallback() {
      this.badge = document.querySelector('[data-live="state"]');
      this.wake = () => { if (!document.hidden) this.ask(); };
      document.addEventListener("visibilitychange", this.wake);
      this.state("live");
      this.timer = setInterval(this.wake, EVERY_MS);
    }

    disconnectedCallback() {
      clearInterval(this.timer);
      document.removeEventListener("visibilitychange", this.wake);
    }

    state(name) { if (this.badge) this.badge.dataset.state = name; }

    async ask() {
      if (this.asking) return;
      this.asking = true;
      try {
        const answer = await fetch(this.dataset.url, { headers: { Accept: "application/json" } });
        if (!answer.ok) throw new Error(String(answer.status));
        this.show(await answer.json());
        this.state("live");
      } catch {
        this.state("waiting");
      } finally {
        this.asking = false;
      }
    }

    show(news) {
      for (const chart of this.querySelectorAll("line-chart")) {
        const lines = news.charts[chart.dataset.chart];
        if (lines) chart.setData(lines);
      }
      const now = this.querySelector('[data-part="now"]');
      if (now && !now.contains(document.activeElement)) now.innerHTML = news.now;
    }
  }

  class ShareSlider extends HTMLElement {
    connectedCallback() {
      const input = this.querySelector("input[type=range]");
      const output = this.querySelector("output");
      if (!input || !output) return;
      const show = () => { output.textContent = `${input.value} %`; };
      input.addEventListener("input", show);
      show();
    }
  }

  customElements.define("live-traffic", LiveTraffic);
  customElements.define("share-slider", ShareSlider);
})();
