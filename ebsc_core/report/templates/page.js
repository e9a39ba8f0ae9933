"use strict";
// Show the alt text of a picture as its title, too. The page does not hold it twice, because long names would
// fill the page.
for (const picture of document.querySelectorAll(".strip img")) picture.title = picture.alt;

const find = document.getElementById("find");
if (find) (() => {
  const clusters = [...document.querySelectorAll("#clusters > .cluster")];
  document.getElementById("finder").hidden = false;
  find.addEventListener("input", () => {
    const wanted = find.value.trim().toLowerCase();
    let shown = 0;
    for (const cluster of clusters) {
      const { number, called } = cluster.dataset;
      const name = called.slice(number.length).toLowerCase();
      cluster.hidden = wanted !== "" && wanted !== number && !name.includes(wanted);
      shown += !cluster.hidden;
    }
    document.getElementById("found").textContent = wanted && `${shown} of ${clusters.length}`;
  });
})();

const map = document.getElementById("map-data");
if (map) (() => {
  const data = JSON.parse(map.textContent);
  const plane = document.getElementById("plane");
  const svg = plane.querySelector("svg");
  const dots = [...document.querySelectorAll("#points circle")];
  const points = dots.map((dot) => ({
    x: +dot.getAttribute("cx"),
    y: +dot.getAttribute("cy"),
    cluster: +(/(?:^| )k(\d+)/.exec(dot.getAttribute("class")) || [0, -1])[1],
    label: +(/(?:^| )l(\d+)/.exec(dot.getAttribute("class")) || [0, -1])[1],
  }));
  const ring = document.getElementById("ring");
  const ties = document.getElementById("ties");
  const tiesPictures = document.getElementById("ties-pictures");
  const said = document.getElementById("point");
  const canvas = document.getElementById("picture");
  const image = document.getElementById("sheet");
  const place = new Map(data.sheet ? data.sheet.held.map((point, at) => [point, at]) : []);
  const near = 40; // in units of the map, whose side is 1000: the pointer selects no point farther away than this
  let chosen = -1;

  function draw(onto, point, side) {
    const { width, height, columns } = data.sheet;
    const at = place.get(point);
    const scale = Math.max(1, Math.floor(side / Math.max(width, height)));
    onto.width = width * scale;
    onto.height = height * scale;
    const context = onto.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(image, (at % columns) * width, Math.floor(at / columns) * height, width, height,
      0, 0, onto.width, onto.height);
  }

  function choose(point) {
    if (point === chosen) return;
    chosen = point;
    ties.replaceChildren();
    tiesPictures.replaceChildren();
    ring.setAttribute("visibility", point < 0 ? "hidden" : "visible");
    canvas.hidden = !place.has(point);
    if (point < 0) {
      said.textContent = "";
      return;
    }
    const { x, y, cluster, label } = points[point];
    ring.setAttribute("cx", x);
    ring.setAttribute("cy", y);
    said.textContent = `${data.names[point]}: ${cluster < 0 ? "no cluster" : `cluster ${data.called[cluster] ?? cluster}`}` +
      (label < 0 ? "" : `, class ${data.labels[label]}`) +
      `, confidence ${Math.round(100 * data.confidence[point])} %`;
    if (place.has(point)) draw(canvas, point, 144);
    for (const other of data.neighbours[point]) {
      const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
      line.setAttribute("class", "tie");
      for (const [name, value] of [["x1", x], ["y1", y], ["x2", points[other].x], ["y2", points[other].y]]) {
        line.setAttribute(name, value);
      }
      ties.append(line);
      if (place.has(other)) {
        const small = document.createElement("canvas");
        draw(small, other, 32);
        tiesPictures.append(small);
      }
    }
  }

  function nearest(x, y, allowed, limit) {
    let best = -1, least = limit;
    points.forEach((point, i) => {
      const distance = Math.hypot(point.x - x, point.y - y);
      if (distance < least && allowed(point, i)) [best, least] = [i, distance];
    });
    return best;
  }

  // Return the nearest point within 45 degrees of the arrow's direction; without a selection, the point nearest
  // to the middle.
  function step(dx, dy) {
    if (chosen < 0) return nearest(500, 500, () => true, Infinity);
    const { x, y } = points[chosen];
    const found = nearest(x, y, (point) => {
      const along = (point.x - x) * dx + (point.y - y) * dy;
      const aside = Math.abs((point.x - x) * dy) + Math.abs((point.y - y) * dx);
      return along > 0 && aside <= along;
    }, Infinity);
    return found < 0 ? chosen : found;
  }

  // Return the point nearest to the number of the next cluster.
  function jump(by) {
    const numbers = [...document.querySelectorAll(".numbers text")];
    if (!numbers.length) return chosen;
    const now = numbers.findIndex((text) => +text.textContent === (points[chosen] || {}).cluster);
    const next = now < 0 ? (by > 0 ? 0 : numbers.length - 1) : (now + by + numbers.length) % numbers.length;
    const text = numbers[next];
    const number = +text.textContent;
    return nearest(+text.getAttribute("x"), +text.getAttribute("y"), (p) => p.cluster === number, Infinity);
  }

  const moves = {
    ArrowLeft: () => step(-1, 0), ArrowRight: () => step(1, 0),
    ArrowUp: () => step(0, -1), ArrowDown: () => step(0, 1),
    PageDown: () => jump(1), PageUp: () => jump(-1), Escape: () => -1,
  };
  plane.addEventListener("keydown", (event) => {
    const move = moves[event.key];
    if (!move || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    choose(move());
  });

  function point(event) {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const found = nearest(at.x, at.y, () => true, near);
    if (found >= 0) choose(found);
  }
  plane.addEventListener("pointermove", point);
  plane.addEventListener("pointerdown", point);

  document.getElementById("colouring")?.addEventListener("change", (event) => {
    plane.classList.toggle("by-label", event.target.value === "label");
  });

  const buttons = [...document.querySelectorAll(".legend button")];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      const alone = button.getAttribute("aria-pressed") === "true" ? -1 : +button.dataset.cluster;
      for (const other of buttons) other.setAttribute("aria-pressed", String(+other.dataset.cluster === alone));
      dots.forEach((dot, i) => dot.classList.toggle("dim", alone >= 0 && points[i].cluster !== alone));
    });
  }
})();
