// In: a JSON line of what to do with the status page. Out: a JSON line of what a real Chromium showed, and screenshots.
//
// { url, shots: [{ file, width, height, dark, full }], wait: [texts], gone: { signal } }
// Every request, console message and violation of the page's policy is listed; who calls judges them.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const OPTIONS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];
const PATIENCE = 30_000;

const profile = mkdtempSync(join(tmpdir(), 'status-page-'));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: OPTIONS, viewport: { width: 1280, height: 900 },
});
const page = browser.pages()[0] ?? (await browser.newPage());
const seen = { requests: [], console: [], errors: [], dialogs: [] };
page.on('request', (request) => seen.requests.push(request.url()));
page.on('console', (message) => seen.console.push(`${message.type()}: ${message.text()}`));
page.on('pageerror', (error) => seen.errors.push(String(error)));
page.on('dialog', (dialog) => { seen.dialogs.push(dialog.message()); dialog.dismiss(); });

// What a reader finds, and what would be wrong with the layout.
function look() {
  const texts = (selector) => [...document.querySelectorAll(selector)].map((element) => element.innerText.trim());
  const cut = [...document.querySelectorAll('main *')].filter((element) => {
    const box = element.getBoundingClientRect();
    return box.width > 0 && (box.right > innerWidth + 1 || box.left < -1);
  });
  return {
    title: document.title,
    state: document.querySelector('#state').innerText.trim(),
    lost: document.querySelector('#lost').hidden ? null : document.querySelector('#lost').innerText,
    facts: document.querySelector('#facts').innerText,
    alarms: texts('#alarms li'),
    tiles: texts('#tiles div'),
    legends: texts('.legend li'),
    charts: [...document.querySelectorAll('figure > svg')].map((svg) => ({
      label: svg.getAttribute('aria-label'), axis: [...svg.querySelectorAll('text')].map((text) => text.textContent),
      points: [...svg.querySelectorAll('polyline')].map((line) => line.getAttribute('points').split(' ').length),
    })),
    upstreams: texts('.group h3'),
    replicas: texts('#upstreams tbody tr'),
    refusals: texts('#refusals tbody tr'),
    routes: texts('#routes tbody tr'),
    certificates: texts('#certificates tbody tr'),
    wide: document.documentElement.scrollWidth,
    width: innerWidth,
    cut: cut.slice(0, 5).map((element) => `${element.tagName}.${element.className} ${element.textContent.slice(0, 60)}`),
    foreign: document.querySelectorAll('img, iframe, object, embed, main script, main a[href^="javascript"]').length,
    injected: globalThis.injected ?? null,
  };
}

const until = (texts) => page.waitForFunction(
  (wanted) => wanted.every((text) => document.body.innerText.includes(text)), texts, { timeout: PATIENCE },
);

const steps = {
  async open({ url, user, password }) {
    if (user) await browser.setHTTPCredentials({ username: user, password });
    const answer = await page.goto(url);
    return { status: answer.status(), headers: answer.headers() };
  },
  // puts a name into every answer, in every place that has one
  async poison({ name }) {
    await page.route('**/status', async (route) => {
      const answer = await route.fetch();
      const status = await answer.json();
      for (const upstream of status.upstreams) {
        upstream.name = name;
        for (const replica of upstream.replicas) Object.assign(replica, { address: name, problem: name });
      }
      for (const each of status.routes) Object.assign(each, { route: name, upstream: name });
      for (const each of status.certificates) Object.assign(each, { file: name, names: [name] });
      status.alarms.push({ level: 'error', text: name });
      for (const each of status.refusals) if (each.last) Object.assign(each.last, { detail: name, request: name });
      await route.fulfill({ response: answer, json: status });
    });
  },
  async wait({ texts }) { await until(texts); },
  async look() { return page.evaluate(look); },
  async violate() {
    return page.evaluate(async () => {
      const broken = [];
      addEventListener('securitypolicyviolation', (event) => broken.push(event.effectiveDirective));
      try { document.body.innerHTML = '<img src=x>'; broken.push('markup was taken'); } catch { broken.push('markup refused'); }
      const script = document.createElement('script');
      try { script.textContent = 'globalThis.injected = 1'; document.head.append(script); } catch { broken.push('script refused'); }
      await fetch('http://127.0.0.2:9/').catch(() => broken.push('fetch refused'));
      await new Promise((done) => setTimeout(done, 50));
      return { broken, injected: globalThis.injected ?? null };
    });
  },
  async shot({ file, width, height, dark, full, scroll }) {
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme: dark ? 'dark' : 'light' });
    await page.waitForFunction(() => [...document.querySelectorAll('figure > svg')].every(
      (svg) => Math.abs(svg.viewBox.baseVal.width - svg.clientWidth) < 1), undefined, { timeout: PATIENCE });
    await page.evaluate((y) => scrollTo(0, y), scroll ?? 0);
    if (file) await page.screenshot({ path: file, fullPage: full ?? true });
    return page.evaluate(look);
  },
  async hover({ chart }) {
    const box = await page.locator('figure > svg').nth(chart).boundingBox();
    await page.mouse.move(box.x + box.width * 0.9, box.y + box.height / 2);
    return page.locator('figure .head').nth(chart).innerText();
  },
  async seen() { return seen; },
};

const replace = process.env.PAGE_FILES; // while the page is written: its files from a folder instead of the binary
if (replace) {
  await page.route(/\/(style\.css|page\.js|chart\.js|)$/, async (route) => {
    const { pathname } = new URL(route.request().url());
    const body = readFileSync(join(replace, pathname === '/' ? 'index.html' : pathname));
    return route.fulfill({ response: await route.fetch(), body });
  });
}

try {
  for await (const line of createInterface({ input: process.stdin })) {
    const { step, ...rest } = JSON.parse(line);
    try {
      console.log(JSON.stringify({ ok: (await steps[step](rest)) ?? null }));
    } catch (error) {
      console.log(JSON.stringify({ failed: String(error) }));
    }
  }
} finally {
  await browser.close();
  rmSync(profile, { recursive: true, force: true });
}
