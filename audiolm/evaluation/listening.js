// One sound at a time; a line runs over the picture; clicking into it plays from there; tables sort by their headings.
"use strict";
const sounds = [...document.querySelectorAll("audio")];
for (const sound of sounds) {
  sound.addEventListener("play", () => sounds.forEach((other) => other !== sound && other.pause()));
}

for (const figure of document.querySelectorAll("figure")) {
  const sound = figure.querySelector("audio");
  const picture = figure.querySelector(".picture");
  const head = figure.querySelector(".head");
  const style = getComputedStyle(picture);
  const left = Number(style.getPropertyValue("--left"));
  const width = Number(style.getPropertyValue("--right")) - left;
  const duration = Number(figure.dataset.duration);
  const place = () => {
    head.hidden = false;
    head.style.left = `${100 * (left + (width * sound.currentTime) / duration)}%`;
  };
  const follow = () => {
    place();
    if (!sound.paused) requestAnimationFrame(follow);
  };
  const playFrom = (seconds) => {
    sound.currentTime = Math.min(Math.max(seconds, 0), duration - 0.01);
    sound.play().catch((error) => {
      if (error.name !== "AbortError") throw error; // stopped by another sound before it began
    });
  };
  sound.addEventListener("play", follow);
  sound.addEventListener("seeked", place);
  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect();
    playFrom((((event.clientX - box.left) / box.width - left) / width) * duration);
  });
  figure.querySelector(".jump").addEventListener("click", () => playFrom(Number(figure.dataset.prompt)));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const sorted = head.getAttribute("aria-sort");
      const down = sorted ? sorted === "ascending" : column > 0; // the worst first
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => Number(row.cells[column].dataset.value);
      const rows = [...body.rows].sort((a, b) => (down ? value(b) - value(a) : value(a) - value(b)));
      body.append(...rows);
    });
  });
}
