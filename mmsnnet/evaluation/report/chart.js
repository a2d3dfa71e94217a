// What pages that show stitches share: the plot of their front and the picture of a route.
'use strict';
function node(name, attributes, parent, text) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.appendChild(made);
  return made;
}
const number = value => value === null || value === undefined ? '–'
  : String(Number(value.toPrecision(5)));
function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find(f => f * power >= raw);
  const found = [];
  for (let n = Math.ceil(low / step); n * step <= high + step * 1e-6; n++) found.push(n * step);
  return [found, Math.max(0, -Math.floor(Math.log10(step) + 1e-9))];
}
function frontOf(stitches, sign) {
  const sorted = [...stitches].sort((a, b) => a.cost - b.cost || sign * (b.quality - a.quality));
  const front = [];
  for (const s of sorted)
    if (!front.length || sign * s.quality > sign * front[front.length - 1].quality) front.push(s);
  return front;
}
function star(x, y, size) {
  const corners = [];
  for (let i = 0; i < 10; i++) {
    const r = i % 2 ? size * .42 : size, a = Math.PI * i / 5 - Math.PI / 2;
    corners.push((x + r * Math.cos(a)).toFixed(1) + ',' + (y + r * Math.sin(a)).toFixed(1));
  }
  return corners.join(' ');
}
function drawAxes(svg, frame, range, costLabel, qualityLabel) {
  const {width, height, margin, px, py} = frame;
  const [x0, x1, y0, y1] = range, bottom = height - margin.bottom, right = width - margin.right;
  const [xs, xd] = ticks(x0, x1, Math.max(4, width / 110));
  const [ys, yd] = ticks(y0, y1, Math.max(4, height / 60));
  for (const v of xs) {
    node('line', {x1: px(v), x2: px(v), y1: margin.top, y2: bottom, class: 'grid'}, svg);
    node('text', {x: px(v), y: bottom + 17, 'text-anchor': 'middle'}, svg, v.toFixed(xd));
  }
  for (const v of ys) {
    node('line', {x1: margin.left, x2: right, y1: py(v), y2: py(v), class: 'grid'}, svg);
    node('text', {x: margin.left - 6, y: py(v) + 4, 'text-anchor': 'end'}, svg, v.toFixed(yd));
  }
  node('text', {x: (margin.left + right) / 2, y: height - 8, 'text-anchor': 'middle'}, svg,
       costLabel);
  const middle = (margin.top + bottom) / 2;
  node('text', {x: 12, y: middle, 'text-anchor': 'middle', transform: `rotate(-90 12 ${middle})`},
       svg, qualityLabel);
}
// Axes around stitches that have .cost and .quality, and further qualities that are to be seen;
// returns the scales px and py of the plot.
function drawFrame(svg, stitches, costLabel, qualityLabel, more = []) {
  const width = svg.clientWidth || 1080, height = Math.round(Math.min(520, 200 + width * .32));
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
  svg.style.height = height + 'px';
  svg.replaceChildren();
  if (!stitches.length) return null;
  const range = ['cost', 'quality'].flatMap(key => {
    const values = stitches.map(s => s[key]).concat(key === 'quality' ? more : []);
    const low = Math.min(...values), high = Math.max(...values);
    const pad = (high - low || Math.abs(high) || 1) * .06;
    return [low - pad, high + pad];
  });
  const margin = {left: 58, right: 12, top: 14, bottom: 46};
  const px = v => margin.left + (v - range[0]) / (range[1] - range[0])
    * (width - margin.left - margin.right);
  const py = v => height - margin.bottom
    - (v - range[2]) / (range[3] - range[2]) * (height - margin.top - margin.bottom);
  const frame = {width, height, margin, px, py};
  drawAxes(svg, frame, range, costLabel, qualityLabel);
  return frame;
}
function drawFront(svg, front, {px, py}) {
  return node('polyline', {points: front.map(s => px(s.cost) + ',' + py(s.quality)).join(' '),
                           fill: 'none', 'stroke-width': 1.6}, svg);
}
function drawMark(svg, s, {px, py}, onFront, chosen) {
  const x = px(s.cost), y = py(s.quality);
  if (onFront && !s.anchor) node('circle', {cx: x, cy: y, r: 7.5, class: 'ring'}, svg);
  if (chosen) node('circle', {cx: x, cy: y, r: 13, class: 'chosen'}, svg);
  const common = {class: 'mark', tabindex: 0, 'data-name': s.name,
                  'aria-label': `${s.name} ${number(s.quality)}`};
  return s.anchor
    ? node('polygon', {...common, points: star(x, y, 11)}, svg)
    : node('circle', {...common, cx: x, cy: y, r: 4.6, 'fill-opacity': .8}, svg);
}
const qualityLabel = (metric, rule) =>
  `${metric} (${rule === 'greater' ? 'higher' : 'lower'} is better)`;
// Each name at the nearest place around its point that is free of names and covers fewest points.
// places: [x, y] of every mark.
function drawNames(svg, stitches, {margin, width, height, px, py}, sign, places) {
  const taken = [], named = new Set(), ways = [[-1, -1], [0, -1], [1, -1], [1, 0], [1, 1], [0, 1],
                                               [-1, 1], [-1, 0]];
  const hits = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
  const marks = places.map(([x, y]) => [x - 5, y - 5, x + 5, y + 5]);
  for (const s of stitches) {
    if (named.has(s.name)) continue;
    named.add(s.name);
    const x = px(s.cost), y = py(s.quality), text = node(
      'text', {class: 'name' + (s.anchor ? ' anchor-name' : '')}, svg, s.name);
    const wide = text.getComputedTextLength() + 4, tall = s.anchor ? 15 : 13;
    let best = null, cost = Infinity;
    [8, 18, 32, 50].forEach((gap, far) => ways.forEach(([right, down]) => {
      const left = x + right * gap - wide * (1 - right) / 2;
      const top = y + down * sign * gap - tall * (1 - down * sign) / 2;
      const box = [left, top, left + wide, top + tall];
      if (box[0] < margin.left || box[2] > width || box[1] < 0 || box[3] > height - margin.bottom
          || taken.some(other => hits(box, other))) return;
      const covered = marks.filter(mark => hits(box, mark)).length * 10 + far;
      if (covered < cost) [best, cost] = [[...box, far], covered];
    }));
    if (!best) { text.remove(); continue; }
    taken.push(best);
    text.setAttribute('x', best[0] + 2);
    text.setAttribute('y', best[3] - 3);
    if (best[4])
      svg.insertBefore(node('line', {
        x1: x, y1: y, x2: Math.max(best[0], Math.min(x, best[2])),
        y2: Math.max(best[1], Math.min(y, best[3])), class: 'leader'}), text);
  }
}
// Blocks of all anchors, filled where the route, [anchor, start, stop] of its segments, runs them.
function drawRoute(svg, route, anchors) {
  svg.replaceChildren();
  const width = svg.clientWidth || 700, left = 30, tall = 32, row = 62;
  const height = route ? anchors.length * row : 1;
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
  svg.style.height = height + 'px';
  if (!route) return;
  const scale = (width - left - 4) / Math.max(
    ...anchors.map(a => a.positions[a.positions.length - 1]));
  // The costliest anchor on top, as in the plot.
  const top = a => (anchors.length - 1 - a) * row + 12;
  anchors.forEach((anchor, a) => {
    node('text', {x: left - 14, y: top(a) + 21, 'text-anchor': 'middle', class: 'label'}, svg,
         anchor.label);
    for (let block = 0; block + 1 < anchor.positions.length; block++) {
      const ran = route.some(([of, start, stop]) => of === a && start <= block && block < stop);
      const from = left + anchor.positions[block] * scale;
      const size = (anchor.positions[block + 1] - anchor.positions[block]) * scale - 3;
      node('rect', {x: from + 1.5, y: top(a), width: Math.max(size, 2), height: tall, rx: 3,
                    class: ran ? 'ran' : 'idle'}, svg);
      if (size > 14)
        node('text', {x: from + 1.5 + size / 2, y: top(a) + 20, 'text-anchor': 'middle',
                      class: ran ? 'ran-number' : 'idle-number'}, svg, block + 1);
    }
  });
  for (let i = 0; i + 1 < route.length; i++) {
    const [from, , stop] = route[i], [to] = route[i + 1];
    const x = left + anchors[from].positions[stop] * scale, up = to > from;
    const y0 = top(from) + (up ? 0 : tall), y1 = top(to) + (up ? tall : 0), head = up ? 7 : -7;
    node('path', {d: `M${x} ${y0}L${x} ${y1}M${x - 4} ${y1 + head}L${x} ${y1}L${x + 4} `
                     + `${y1 + head}`, class: 'crossing'}, svg);
  }
}
