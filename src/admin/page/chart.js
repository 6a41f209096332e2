// A chart of lines over time. In: samples; out, SVG with axes and units, and a legend that says the numbers.

const SVG = 'http://www.w3.org/2000/svg';
const HEIGHT = 170;
const EDGE = { top: 14, right: 6, bottom: 22, left: 52 };
const STYLES = 5; // .s0 to .s4 in style.css: a colour and a dash of its own

export function shape(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// Up to four round steps that reach over the highest value; whole ones for what can only be counted.
function scale(most, whole) {
  if (!(most > 0)) return { top: 1, step: 1 };
  const rough = whole ? Math.max(1, most / 4) : most / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = (whole ? [1, 2, 5, 10] : [1, 2, 2.5, 5, 10]).map((n) => n * power).find((n) => n >= rough * 0.999);
  return { top: Math.ceil((most / step) * 0.999) * step, step };
}

export class Chart {
  // `format` writes a value with its unit; `tick` the same, short, at the axis; `whole`: there are no halves
  constructor(parent, { title, unit, format, tick, whole }) {
    this.title = title;
    this.format = format;
    this.whole = whole ?? false;
    this.tick = tick ?? format;
    const figure = document.createElement('figure');
    const head = figure.appendChild(document.createElement('div'));
    head.className = 'head';
    const heading = head.appendChild(document.createElement('h3'));
    heading.append(title, ' ');
    heading.appendChild(document.createElement('span')).textContent = unit;
    this.when = head.appendChild(document.createElement('span'));
    this.when.className = 'quiet';
    this.legend = figure.appendChild(document.createElement('ul'));
    this.legend.className = 'legend';
    this.svg = figure.appendChild(shape('svg', { role: 'img', height: HEIGHT }));
    parent.append(figure);
    this.data = { samples: [], series: [], marks: [], from: 0, to: 1 };
    this.at = null;
    this.svg.addEventListener('pointermove', (event) => this.point(event));
    this.svg.addEventListener('pointerdown', (event) => this.point(event));
    this.svg.addEventListener('pointerleave', () => { this.at = null; this.paint(); });
    new ResizeObserver(() => this.paint()).observe(this.svg);
  }

  // `series`: [{ name, value: (sample) => number or null }]; `from`, `to`: seconds since 1970
  // `marks`: [{ time, text }], what happened to the edge itself
  draw(samples, series, marks, from, to) {
    this.data = { samples, series: series.slice(0, STYLES), marks, from, to };
    this.paint();
  }

  point(event) {
    const { samples, from, to } = this.data;
    const box = this.svg.getBoundingClientRect();
    const inner = box.width - EDGE.left - EDGE.right;
    const time = from + ((event.clientX - box.left - EDGE.left) / inner) * (to - from);
    let nearest = null;
    for (const sample of samples) {
      if (nearest === null || Math.abs(sample.time - time) < Math.abs(nearest.time - time)) nearest = sample;
    }
    this.at = nearest && nearest.time;
    this.paint();
  }

  paint() {
    const width = this.svg.clientWidth;
    if (width === 0) return;
    const { samples, series, marks, from, to } = this.data;
    const right = width - EDGE.right;
    const bottom = HEIGHT - EDGE.bottom;
    const x = (time) => EDGE.left + ((time - from) / (to - from)) * (right - EDGE.left);
    let most = 0;
    for (const one of series) for (const sample of samples) most = Math.max(most, one.value(sample) ?? 0);
    const { top, step } = scale(most, this.whole);
    const y = (value) => bottom - (value / top) * (bottom - EDGE.top);
    const parts = [];
    for (let n = 0; n * step <= top * 1.001; n += 1) {
      const level = y(n * step).toFixed(1);
      parts.push(shape('line', { class: n ? 'grid' : 'axis', x1: EDGE.left, x2: right, y1: level, y2: level }));
      parts.push(shape('text', { x: EDGE.left - 8, y: +level + 4, 'text-anchor': 'end' }, this.tick(n * step)));
    }
    parts.push(...this.times(x, from, to, bottom, right));
    for (const mark of marks) {
      const at = x(mark.time);
      const [anchor, beside] = at > right - 70 ? ['end', -4] : ['start', 4];
      parts.push(shape('line', { class: 'mark', x1: at.toFixed(1), x2: at.toFixed(1), y1: EDGE.top - 8, y2: bottom }));
      parts.push(shape('text', { class: 'mark', x: (at + beside).toFixed(1), y: EDGE.top, 'text-anchor': anchor }, mark.text));
    }
    series.forEach((one, n) => parts.push(...lines(samples, one, n, x, y)));
    const chosen = samples.find((sample) => sample.time === this.at);
    if (chosen) {
      const at = x(chosen.time).toFixed(1);
      parts.push(shape('line', { class: 'cursor', x1: at, x2: at, y1: EDGE.top, y2: bottom }));
    }
    if (samples.length === 0) {
      const middle = (EDGE.left + right) / 2;
      parts.push(shape('text', { class: 'empty', x: middle, y: (EDGE.top + bottom) / 2, 'text-anchor': 'middle' }, 'nothing measured yet'));
    }
    this.svg.setAttribute('viewBox', `0 0 ${width} ${HEIGHT}`);
    this.svg.replaceChildren(...parts);
    this.say(chosen ?? samples.at(-1), chosen !== undefined);
  }

  // A label for every second minute, where there is room.
  times(x, from, to, bottom, right) {
    const parts = [];
    const every = right - EDGE.left < 330 ? 240 : 120;
    for (let time = Math.ceil(from / every) * every; time <= to; time += every) {
      const at = x(time);
      parts.push(shape('line', { class: 'axis', x1: at.toFixed(1), x2: at.toFixed(1), y1: bottom, y2: bottom + 4 }));
      const anchor = at > right - 18 ? 'end' : at < EDGE.left + 18 ? 'start' : 'middle';
      parts.push(shape('text', { x: at.toFixed(1), y: bottom + 17, 'text-anchor': anchor }, clock(time, false)));
    }
    return parts;
  }

  say(sample, chosen) {
    const { series } = this.data;
    this.when.textContent = chosen ? `at ${clock(sample.time, true)} UTC` : '';
    const said = series.map((one) => {
      const value = sample ? one.value(sample) : null;
      return `${one.name} ${value === null || value === undefined ? '–' : this.format(value)}`;
    });
    while (this.legend.children.length > series.length) this.legend.lastChild.remove();
    said.forEach((text, n) => {
      let item = this.legend.children[n];
      if (!item) {
        item = this.legend.appendChild(document.createElement('li'));
        const key = item.appendChild(shape('svg', { viewBox: '0 0 22 8', 'aria-hidden': 'true' }));
        key.append(shape('line', { class: `series s${n}`, x1: 1, x2: 21, y1: 4, y2: 4 }));
        item.appendChild(document.createElement('span'));
      }
      item.lastChild.textContent = text;
    });
    this.svg.setAttribute('aria-label', `${this.title}, the last ten minutes. ${chosen ? 'Then' : 'Now'}: ${said.join(', ')}`);
  }
}

// A line for each run of samples without a hole; a run of one is a dot.
function lines(samples, one, n, x, y) {
  const runs = [];
  let run = null;
  let before = null;
  for (const sample of samples) {
    const value = one.value(sample);
    const hole = before !== null && sample.time - before > 3 * sample.seconds + 1;
    before = sample.time;
    if (value === null || value === undefined) { run = null; continue; }
    if (run === null || hole) runs.push(run = []);
    run.push(`${x(sample.time).toFixed(1)},${y(value).toFixed(1)}`);
  }
  return runs.map((points) => {
    if (points.length > 1) return shape('polyline', { class: `series s${n}`, points: points.join(' ') });
    const [cx, cy] = points[0].split(',');
    return shape('circle', { class: `dot s${n}`, cx, cy, r: 1.75 });
  });
}

// UTC, as in the logs.
export function clock(time, seconds) {
  const at = new Date(time * 1000);
  const two = (n) => String(n).padStart(2, '0');
  return `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}${seconds ? `:${two(at.getUTCSeconds())}` : ''}`;
}
