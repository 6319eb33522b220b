/* <pixel-input>: a picture at the size the model takes. Draw, upload or take the sample; the pixels go into the form. */
(() => {
  "use strict";

  class PixelInput extends HTMLElement {
    connectedCallback() {
      this.field = document.getElementById(this.dataset.field);
      this.canvas = this.querySelector("canvas");
      if (!this.field || !this.canvas) return;
      this.channels = Number(this.dataset.channels);
      this.width = Number(this.dataset.width);
      this.height = Number(this.dataset.height);
      this.context = this.canvas.getContext("2d", { willReadFrequently: true });
      this.sample = this.field.defaultValue;
      this.querySelectorAll("[data-tools]").forEach((part) => { part.hidden = false; });
      this.show(this.field.value);
      this.teardown = new AbortController();
      const on = (target, name, act) => target.addEventListener(name, act, { signal: this.teardown.signal });
      on(this, "click", (event) => {
        const what = event.target.closest("[data-do]")?.dataset.do;
        if (what === "sample") this.show(this.sample);
        if (what === "clear") { this.fill(); this.keep(); }
      });
      on(this.querySelector("input[type=file]"), "change", (event) => this.load(event.target));
      on(this.canvas, "pointerdown", (event) => {
        this.canvas.setPointerCapture(event.pointerId);
        this.last = null;
        this.draw(event);
      });
      on(this.canvas, "pointermove", (event) => { if (event.buttons) this.draw(event); });
      on(this.canvas, "pointerup", () => this.keep());
    }

    disconnectedCallback() { this.teardown?.abort(); }

    fill() {
      this.context.fillStyle = "#000";
      this.context.fillRect(0, 0, this.width, this.height);
    }

    /* numbers 0..1, one plane a channel, onto the canvas */
    show(text) {
      let numbers;
      try { numbers = JSON.parse(text || "[]").flat(Infinity); } catch { numbers = []; }
      const plane = this.width * this.height;
      const image = this.context.createImageData(this.width, this.height);
      for (let at = 0; at < plane; at += 1) {
        for (let colour = 0; colour < 3; colour += 1) {
          const value = numbers[(this.channels === 3 ? colour : 0) * plane + at] ?? 0;
          image.data[at * 4 + colour] = Math.round(Math.min(1, Math.max(0, value)) * 255);
        }
        image.data[at * 4 + 3] = 255;
      }
      this.context.putImageData(image, 0, 0);
      this.field.value = text || this.field.value;
    }

    /* the canvas as the model wants it; grey weighs colours as Pillow does */
    keep() {
      const { data } = this.context.getImageData(0, 0, this.width, this.height);
      const plane = this.width * this.height;
      const numbers = new Array(plane * this.channels);
      for (let at = 0; at < plane; at += 1) {
        const [red, green, blue] = [data[at * 4], data[at * 4 + 1], data[at * 4 + 2]];
        if (this.channels === 3) [red, green, blue].forEach((value, colour) => { numbers[colour * plane + at] = round(value / 255); });
        else numbers[at] = round((red * 299 + green * 587 + blue * 114) / 255000);
      }
      this.field.value = JSON.stringify(numbers);
    }

    draw(event) {
      const box = this.canvas.getBoundingClientRect();
      const here = [(event.clientX - box.left) / box.width * this.width, (event.clientY - box.top) / box.height * this.height];
      const [x, y] = this.last ?? here;
      this.context.strokeStyle = "#fff";
      this.context.lineCap = "round";
      this.context.lineWidth = Math.max(1, this.width / 9);
      this.context.beginPath();
      this.context.moveTo(x, y);
      this.context.lineTo(here[0] + 0.01, here[1]);
      this.context.stroke();
      this.last = here;
    }

    async load(input) {
      const [file] = input.files;
      input.value = "";
      if (!file) return;
      let picture;
      try { picture = await createImageBitmap(file); }
      catch { window.tauon?.toast(this.dataset.unreadable, "bad"); return; }
      this.fill();
      this.context.imageSmoothingQuality = "high";
      this.context.drawImage(picture, 0, 0, this.width, this.height);
      picture.close();
      this.keep();
    }
  }

  const round = (value) => Math.round(value * 10000) / 10000;
  customElements.define("pixel-input", PixelInput);
})();
