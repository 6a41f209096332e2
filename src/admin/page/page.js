// The status page. In: /status and /status/history, every two seconds; out, what they say, as text and never as markup.

import { Chart, clock } from '/chart.js';

const EVERY = 2000;
const PATIENCE = 5000;
const WINDOW = 600; // seconds that charts show
const SMOOTH = 10; // seconds that rates are drawn over
const LATELY = 30; // seconds that rates of routes are taken over

const find = (selector) => document.querySelector(selector);
const store = { samples: [], routes: [], version: null, began: null, heard: null, lost: null };

// ---- words ----

// What steers text or hides in it is shown for what it is; what is very long is cut.
function clean(text) {
  const shown = String(text).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
  return shown.length > 400 ? `${shown.slice(0, 400)}…` : shown;
}

const number = (value) => value.toLocaleString('en', { maximumFractionDigits: value < 10 ? 2 : value < 100 ? 1 : 0 });
const many = (count, word) => `${number(count)} ${word}${count === 1 ? '' : 's'}`;
const perSecond = (value) => `${number(value)}/s`;
const millis = (value) => (value >= 1000 ? `${number(value / 1000)} s` : `${number(value)} ms`);

function period(seconds) {
  const units = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
  const first = units.findIndex(([size]) => seconds >= size);
  if (first < 0) return '0 s';
  const [size, name] = units[first];
  const whole = Math.floor(seconds / size);
  const next = units[first + 1];
  const rest = next && whole < 10 ? Math.floor((seconds % size) / next[0]) : 0;
  return `${whole} ${name}${rest ? ` ${rest} ${next[1]}` : ''}`;
}

const problem = ({ problem, problem_at: at }, now) => (problem === null ? '–' : at === null ? problem : `${problem} (${period(now - at)} ago)`);
const sum = (tally) => Object.values(tally).reduce((a, b) => a + b, 0);
const of = (tally, ...words) => words.reduce((all, word) => all + (tally[word] ?? 0), 0);

// ---- elements: only what has changed is touched, so that text can be selected ----

function write(element, text) {
  const shown = clean(text);
  if (element.textContent !== shown) element.textContent = shown;
}

function make(name, className, parent) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (parent) parent.append(element);
  return element;
}

function sign(element, [kind, mark, word]) {
  if (!element.firstChild) {
    make('span', 'sign', element).setAttribute('aria-hidden', 'true');
    make('span', 'word', element);
  }
  element.className = `state ${kind}`;
  write(element.firstChild, mark);
  write(element.lastChild, word);
}

// Keeps as many children as there are items, made by `create` and filled by `fill`.
function list(parent, items, create, fill) {
  while (parent.children.length > items.length) parent.lastChild.remove();
  items.forEach((item, n) => fill(parent.children[n] ?? parent.appendChild(create()), item));
}

// `columns`: [{ label, kind, text | state, more }]
function table(place, columns, items, nothing) {
  const shape = columns.map((column) => column.label).join();
  if (place.dataset.shape !== shape) { place.dataset.shape = shape; place.replaceChildren(); }
  if (items.length === 0) {
    if (place.firstChild?.className !== 'nothing') place.replaceChildren(make('p', 'nothing'));
    return write(place.firstChild, nothing);
  }
  let body = place.querySelector('tbody');
  if (!body) {
    place.replaceChildren();
    const whole = make('table', '', place);
    const head = make('tr', '', make('thead', '', whole));
    for (const column of columns) {
      const cell = make('th', column.kind, head);
      cell.scope = 'col';
      cell.textContent = column.label;
    }
    body = make('tbody', '', whole);
  }
  const row = () => {
    const made = document.createElement('tr');
    for (const column of columns) {
      const cell = make('td', column.kind, made);
      cell.dataset.label = column.label;
      const content = make('div', '', cell);
      make('span', '', content);
      if (column.more) make('div', 'quiet', content);
    }
    return made;
  };
  list(body, items, row, (line, item) => columns.forEach((column, n) => {
    const content = line.children[n].firstChild;
    const text = column.state ? null : column.text(item);
    if (column.state) sign(content.firstChild, column.state(item));
    else write(content.firstChild, text);
    if (column.more) write(content.lastChild, column.more(item));
    line.children[n].classList.toggle('blank', text === '–');
  }));
}

// ---- the parts ----

const STATES = {
  up: ['good', '●', 'up'],
  starting: ['warn', '◐', 'starting'],
  failing: ['bad', '▲', 'failing'],
  draining: ['warn', '◑', 'draining'],
  ejected: ['bad', '▲', 'ejected'],
  down: ['bad', '✕', 'down'],
};

function header(status) {
  const errors = status.alarms.filter((alarm) => alarm.level === 'error').length;
  const warnings = status.alarms.length - errors;
  const also = errors ? `, ${many(errors, 'error')}` : warnings ? `, ${many(warnings, 'warning')}` : '';
  let state = ['good', '●', 'Ready'];
  if (errors) state = ['bad', '▲', `Ready${also}`];
  else if (warnings) state = ['warn', '▲', `Ready${also}`];
  if (!status.ready) state = ['bad', '✕', `Not ready${also}`];
  if (status.phase === 'stopping') state = ['warn', '◑', 'Stopping'];
  if (status.phase === 'starting') state = ['warn', '◐', 'Starting'];
  sign(find('#state'), state);
  document.title = `${state[1]} ${state[2]} – mcp-edge`;
  const facts = [
    location.host, `version ${status.version}`, `config generation ${status.generation}`, `up ${period(status.uptime)}`,
    many(status.connections, 'connection'), `${many(status.sessions_sealed, 'session')} begun`,
  ];
  write(find('#facts'), facts.join(' · '));
}

function alarms(status) {
  const section = find('#alarms');
  section.hidden = status.alarms.length === 0;
  section.classList.toggle('bad', status.alarms.some((alarm) => alarm.level === 'error'));
  const item = () => { const li = document.createElement('li'); make('span', 'state', li); make('span', '', li); return li; };
  list(section.querySelector('ul'), status.alarms, item, (li, alarm) => {
    sign(li.firstChild, alarm.level === 'error' ? ['bad', '✕', 'error'] : ['warn', '▲', 'warning']);
    write(li.lastChild, alarm.text);
  });
}

// What came in the last `seconds`, and in how many seconds that really was.
function last(seconds, value) {
  const end = store.samples.at(-1)?.time ?? 0;
  const samples = store.samples.filter((sample) => sample.time > end - seconds);
  const add = (what) => samples.reduce((all, sample) => all + what(sample), 0);
  return [add(value), add((sample) => sample.seconds)];
}

function tiles(status) {
  const timed = store.samples.findLast((sample) => sample.p95_ms !== null);
  const fresh = timed && timed.time > status.now - 60;
  const [requests, seconds] = last(10, (s) => sum(s.requests));
  const items = [
    ['Requests', number(seconds ? requests / seconds : 0), 'per second'],
    ['First byte', fresh ? millis(timed.p95_ms) : '–', 'p95'],
    ['In flight', number(status.in_flight), 'at replicas'],
    ['Streams', number(status.streams), 'open'],
    ['Refusals', number(last(60, (s) => sum(s.refusals))[0]), 'last minute'],
    ['Server errors', number(last(60, (s) => of(s.requests, '5xx'))[0]), 'last minute'],
  ];
  const tile = () => { const div = document.createElement('div'); make('dt', '', div); make('dd', '', div); return div; };
  list(find('#tiles'), items, tile, (div, [name, value, unit]) => {
    write(div.firstChild, name);
    const dd = div.lastChild;
    if (!dd.firstChild) { make('span', '', dd); dd.append(' '); make('small', '', dd); }
    write(dd.firstChild, value);
    write(dd.lastChild, unit);
  });
}

function replicas(status) {
  const columns = [
    { label: 'Replica', kind: 'name', text: (r) => r.address },
    { label: 'State', kind: 'narrow', state: (r) => STATES[r.state] ?? ['warn', '?', r.state] },
    { label: 'Since', kind: 'narrow', text: (r) => (r.since === null ? 'the start' : `${period(status.now - r.since)} ago`) },
    { label: 'Last problem', kind: 'labelled', text: (r) => problem(r, status.now) },
    { label: 'In flight', kind: 'number narrow', text: (r) => number(r.in_flight) },
    { label: 'First byte', kind: 'number narrow', text: (r) => (r.latency_ms === null ? '–' : millis(r.latency_ms)) },
  ];
  const all = status.upstreams.flatMap((upstream) => upstream.replicas);
  if (all.some((r) => r.weight !== 1)) columns.push({ label: 'Weight', kind: 'number narrow', text: (r) => number(r.weight) });
  if (all.some((r) => r.priority !== 0)) columns.push({ label: 'Priority', kind: 'number narrow', text: (r) => number(r.priority) });
  const group = () => {
    const div = make('div', 'group');
    const head = make('div', 'head', div);
    make('h3', '', head);
    make('span', 'state', head);
    make('div', '', div);
    return div;
  };
  list(find('#upstreams .groups'), status.upstreams, group, (div, upstream) => {
    const { available, name, replicas: all } = upstream;
    write(div.firstChild.firstChild, name);
    const kind = available === 0 ? ['bad', '✕'] : available < all.length ? ['warn', '▲'] : ['good', '●'];
    sign(div.firstChild.lastChild, [...kind, `${available} of ${all.length} up`]);
    table(div.lastChild, columns, all, 'no replicas');
  });
}

function refusals(status) {
  const lately = {};
  for (const sample of store.samples) {
    for (const [code, count] of Object.entries(sample.refusals)) lately[code] = (lately[code] ?? 0) + count;
  }
  const where = ({ last }) => [
    last.route && `route ${last.route}`, last.rpc_method, last.tool && `“${last.tool}”`, `from ${last.client}`, last.detail,
  ].filter(Boolean).join(' · ');
  const columns = [
    { label: 'Code', kind: 'name narrow', text: (r) => r.code },
    { label: 'Last 10 min', kind: 'number narrow', text: (r) => number(lately[r.code] ?? 0) },
    { label: 'Since start', kind: 'number narrow', text: (r) => number(r.count) },
    { label: 'Last', kind: 'narrow', text: (r) => (r.last ? `${period(Math.max(0, status.now - r.last.time))} ago` : '–') },
    {
      label: 'Which', kind: 'wide', text: (r) => (r.last ? `${r.last.status} ${r.last.request}` : '–'),
      more: (r) => (r.last ? where(r) : ''),
    },
  ];
  // roughly by how many, so that rows stand still
  const size = (r) => Math.ceil(Math.log2(1 + (lately[r.code] ?? 0)));
  const sorted = [...status.refusals].sort((a, b) => size(b) - size(a) || (a.code < b.code ? -1 : 1));
  table(find('#refusals .table'), columns, sorted, 'Nothing was refused since the start.');
}

function routes(status) {
  store.routes.push({ now: status.now, routes: status.routes });
  while (store.routes[0].now < status.now - LATELY && store.routes.length > 2) store.routes.shift();
  const before = store.routes[0];
  const same = (a) => (b) => a.route === b.route && a.upstream === b.upstream;
  const lately = (route) => {
    const earlier = before.routes.find(same(route));
    const seconds = status.now - before.now;
    return seconds > 0 ? Math.max(0, sum(route.requests) - (earlier ? sum(earlier.requests) : 0)) / seconds : null;
  };
  const columns = [
    { label: 'Route', kind: 'name', text: (r) => r.route || '(no route)' },
    { label: 'Upstream', kind: 'labelled', text: (r) => r.upstream || '–' },
    { label: 'Now', kind: 'number narrow', text: (r) => { const n = lately(r); return n === null ? '–' : perSecond(n); } },
    { label: 'Requests', kind: 'number narrow', text: (r) => number(sum(r.requests)) },
    { label: 'of these 4xx', kind: 'number narrow', text: (r) => number(of(r.requests, '4xx')) },
    { label: '5xx', kind: 'number narrow', text: (r) => number(of(r.requests, '5xx')) },
  ];
  const sorted = [...status.routes].sort((a, b) => sum(b.requests) - sum(a.requests));
  table(find('#routes .table'), columns, sorted, 'No request since the start.');
}

function certificates(status) {
  find('#certificates').hidden = status.certificates.length === 0;
  const left = (c) => (c.expires - status.now) / 86400;
  const state = (c) => (left(c) <= 0 ? ['bad', '✕', 'expired'] : left(c) < 14 ? ['warn', '▲', 'expires soon'] : ['good', '●', 'good']);
  const columns = [
    { label: 'Names', kind: 'name', text: (c) => c.names.join(', ') || '(none)' },
    { label: 'State', kind: 'narrow', state },
    { label: 'Expires', kind: 'narrow labelled', text: (c) => `${new Date(c.expires * 1000).toISOString().slice(0, 10)}, ${left(c) > 0 ? `in ${many(Math.floor(left(c)), 'day')}` : `${period(-left(c) * 86400)} ago`}` },
    { label: 'From', kind: 'labelled', text: (c) => c.file },
  ];
  table(find('#certificates .table'), columns, status.certificates, 'none');
}

// ---- charts ----

const charts = {};
function startCharts() {
  const place = find('#charts');
  write(make('p', 'quiet', place), 'The last ten minutes. Times are UTC, as in the logs.');
  charts.traffic = new Chart(place, { title: 'Traffic', unit: 'requests per second, by status', format: perSecond, tick: number });
  charts.latency = new Chart(place, { title: 'First byte', unit: 'time to the answer’s head, by percentile', format: millis });
  charts.open = new Chart(place, { title: 'Open', unit: 'streams, connections, in flight', format: number, whole: true });
  charts.refusals = new Chart(place, { title: 'Refusals', unit: 'per second, by code', format: perSecond, tick: number });
}

// Starts and reloads, as samples show them.
function happened(samples) {
  const marks = store.began ? [{ time: store.began, text: 'start' }] : [];
  samples.forEach((sample, n) => {
    const before = samples[n - 1];
    if (before && sample.generation > before.generation) marks.push({ time: sample.time, text: `config ${sample.generation}` });
  });
  return marks;
}

// A rate over ten seconds up to each sample: of single ones, few requests make a comb.
function smooth(count) {
  const rates = new Map();
  store.samples.forEach((sample, n) => {
    const near = store.samples.slice(Math.max(0, n - 4), n + 1).filter((one) => sample.time - one.time < SMOOTH);
    const add = (what) => near.reduce((all, one) => all + what(one), 0);
    rates.set(sample, add(count) / add((one) => one.seconds));
  });
  return (sample) => rates.get(sample) ?? null;
}

function draw(now) {
  const { samples } = store;
  const from = now - WINDOW;
  const marks = happened(samples).filter((mark) => mark.time >= from);
  const by = (name, ...classes) => ({ name, value: smooth((s) => of(s.requests, ...classes)) });
  const traffic = [by('2xx, 3xx', '1xx', '2xx', '3xx'), by('4xx', '4xx'), by('5xx', '5xx')];
  if (samples.some((sample) => sample.requests.none)) traffic.push(by('client left', 'none'));
  charts.traffic.draw(samples, traffic, marks, from, now);
  const share = (name, key) => ({ name, value: (s) => s[key] });
  charts.latency.draw(samples, [share('p50', 'p50_ms'), share('p95', 'p95_ms'), share('p99', 'p99_ms')], marks, from, now);
  charts.open.draw(samples, [share('streams', 'streams'), share('connections', 'connections'), share('in flight', 'in_flight')], marks, from, now);
  const codes = {};
  for (const sample of samples) for (const [code, n] of Object.entries(sample.refusals)) codes[code] = (codes[code] ?? 0) + n;
  const top = Object.keys(codes).sort((a, b) => codes[b] - codes[a] || (a < b ? -1 : 1)).slice(0, 4);
  const series = top.map((code) => ({ name: clean(code), value: smooth((s) => s.refusals[code] ?? 0) }));
  const others = (s) => Object.entries(s.refusals).reduce((all, [code, n]) => (top.includes(code) ? all : all + n), 0);
  if (Object.keys(codes).length > top.length) series.push({ name: 'others', value: smooth(others) });
  charts.refusals.draw(samples, series.length ? series : [{ name: 'none', value: () => 0 }], marks, from, now);
}

// ---- the loop ----

async function ask(path) {
  const answer = await fetch(path, { cache: 'no-store', credentials: 'same-origin', signal: AbortSignal.timeout(PATIENCE) });
  if (!answer.ok) throw new Error(`it answers ${answer.status}`);
  return answer.json();
}

function show(status, samples) {
  if (store.version !== null && store.version !== status.version) return location.reload(); // a new binary, a new page
  store.version = status.version;
  if (store.began !== status.started) { store.began = status.started; store.routes = []; }
  // samples of a process before this one stay: they say what led to its end. But a clock may be set back
  const sound = (sample) => sample.time > status.now - WINDOW - 5 && sample.time < status.now + 5;
  store.samples = [...store.samples, ...samples].filter(sound);
  [header, alarms, tiles, replicas, refusals, routes, certificates].forEach((part) => part(status));
  find('#main').hidden = false;
  draw(status.now);
}

function reached(error) {
  const lost = find('#lost');
  document.body.classList.toggle('stale', error !== null);
  lost.hidden = error === null;
  if (error === null) { store.heard = Date.now(); store.lost = null; return; }
  store.lost ??= Date.now();
  sign(find('#state'), ['bad', '✕', 'Unreachable']);
  document.title = '✕ Unreachable – mcp-edge';
  const why = error.name === 'TimeoutError' ? `no answer within ${PATIENCE / 1000} s` : error.name === 'TypeError' ? 'no connection' : error.message;
  const old = store.heard ? ` What stands below is of ${clock(store.heard / 1000, true)}.` : '';
  write(lost, `The edge at ${location.host} cannot be reached since ${clock(store.lost / 1000, true)}: ${why}.${old} The page asks again every ${EVERY / 1000} s.`);
}

function age() {
  if (store.heard) write(find('#age'), `updated ${period((Date.now() - store.heard) / 1000)} ago`);
}

async function round() {
  if (document.hidden) return;
  const after = store.samples.at(-1)?.time ?? 0;
  const asked = Promise.all([ask('/status'), ask(`/status/history?after=${after}`)]);
  const [said, error] = await asked.then((both) => [both, null], (error) => [null, error]);
  reached(error);
  if (said) show(said[0], said[1].samples);
  age();
}

async function forever() {
  for (;;) {
    await round().catch((error) => reached(new Error(`this page cannot show what it says (${error.message})`)));
    await new Promise((wake) => { store.wake = wake; setTimeout(wake, EVERY); });
  }
}

startCharts();
document.addEventListener('visibilitychange', () => store.wake?.());
setInterval(age, 1000);
forever();
