'use strict';
// The run, as report_html.go wrote it: events are arrays
// [seq, t (ms), kind, actor, host, instance, op, detail, cause, {attrs}].
const D = JSON.parse(document.getElementById('data').textContent);
const $ = id => document.getElementById(id);
const E = D.events.map(a => ({seq: a[0], t: a[1], kind: D.kinds[a[2]], actor: a[3], host: a[4], inst: a[5], op: a[6], detail: a[7], cause: a[8], at: a[9] || {}}));
const bySeq = new Map(E.map((e, i) => [e.seq, i]));
const END = Math.max(D.end, 1);
const bad = new Map(); // seq → checks
D.violations.forEach(v => (v.events || []).forEach(s => bad.set(s, (bad.get(s) || []).concat(v.check))));

// ---- lanes
const lanes = [], laneOf = new Map();
function lane(id, label, host, tier, kind) { const l = {id, label, host, tier, kind, ev: [], bars: [], pulls: [], deaf: [], bad: false, acted: false}; laneOf.set(id, l); lanes.push(l); return l; }
lane(':ops', 'operator', '', '', 'ops'); lane(':redis', 'redis', '', '', 'redis');
for (const m of D.members) lane(m.name, m.name, m.host, m.tier, 'svc');
const serves = new Map(); // process → lanes
for (const m of D.members) { if (!serves.has(m.process)) serves.set(m.process, []); serves.get(m.process).push(laneOf.get(m.name)); }
const byHost = new Map();
for (const l of lanes) if (l.host) { if (!byHost.has(l.host)) byHost.set(l.host, []); byHost.get(l.host).push(l); }

const state = new Map(), sub = new Map(), pulls = new Map();
function bar(l, t, s) { const c = state.get(l); if (c && c.s === s) return; if (c) { l.bars.push([c.t, t, c.s]); } state.set(l, {t, s}); }
for (const m of D.members) bar(laneOf.get(m.name), 0, m.state === 'active' ? 'up' : m.state === 'failed' ? 'down' : 'stopped');
const faults = []; const openFaults = new Map();
const opsKinds = new Set(['dispatch', 'publish', 'report', 'settle', 'say', 'send', 'release', 'no_report', 'push', 'note', 'assert']);
const quiet = new Set(['heartbeat', 'delivered', 'flock', 'funlock', 'member', 'state', 'redis_command', 'run_started', 'run_ended', 'verdict', 'send', 'key_left', 'ready', 'log', 'unit_started', 'git', 'lock', 'unlock', 'revision', 'restart_finished', 'link_down']);
let redisDown = null; const redisBars = [];
for (const e of E) {
  let l = laneOf.get(e.inst) || null;
  if (opsKinds.has(e.kind)) l = laneOf.get(':ops');
  else if (e.kind === 'redis') l = laneOf.get(':redis');
  e.lane = l;
  if (l) l.ev.push(e);
  else for (const x of serves.get(e.actor) || []) x.ev.push(e);
  switch (e.kind) {
    case 'restart_queued': if (l) { bar(l, e.t, 'busy'); l.acted = true; } break;
    case 'unit_stopped': if (l) bar(l, e.t, e.at.why === 'restart' ? 'busy' : e.at.why === 'stop' ? 'stopped' : 'down'); break;
    case 'unit_active': if (l) bar(l, e.t, 'up'); break;
    case 'unit_failed': case 'unit_died': case 'start_limit': if (l) { bar(l, e.t, 'down'); l.trouble = true; } break;
    case 'pull_started': { const p = {t: e.t, path: e.at.path, e}; pulls.set(e.host + e.at.path, p); } break;
    case 'pull_ended': { const p = pulls.get(e.host + e.at.path); if (p) { const who = laneOf.get(e.at.by) || laneOf.get(p.e.at.by); if (who) { who.pulls.push([p.t, e.t, e.at.ok !== 'false']); who.acted = true; } pulls.delete(e.host + e.at.path); } } break;
    case 'subscribed': if (sub.has(e.actor)) { for (const x of serves.get(e.actor) || []) x.deaf.push([sub.get(e.actor), e.t]); sub.delete(e.actor); } break;
    case 'unsubscribed': case 'crash': case 'exit': if (!sub.has(e.actor) && serves.has(e.actor)) sub.set(e.actor, e.t); break;
    case 'ack': if (l && e.at.phase === 'accepted') l.acted = true; if (l && (e.at.status === 'failed')) l.trouble = true; break;
    case 'fault': { const f = {t0: e.t, t1: END, e, hosts: hit(e)}; openFaults.set(e.seq, f); faults.push(f); } break;
    case 'healed': { const f = openFaults.get(e.cause); if (f) f.t1 = e.t; } break;
    case 'redis': { const w = e.at.what; if (['down', 'stalled', 'readonly', 'oom'].includes(w)) redisDown = redisDown || {t: e.t, w}; else if (redisDown) { redisBars.push([redisDown.t, e.t, redisDown.w]); redisDown = null; } } break;
  }
}
if (redisDown) redisBars.push([redisDown.t, END, redisDown.w]);
for (const [l, c] of state) l.bars.push([c.t, END, c.s]);
for (const [p, t] of sub) for (const x of serves.get(p) || []) x.deaf.push([t, END]);
for (const [k, p] of pulls) { const who = laneOf.get(p.e.at.by); if (who) who.pulls.push([p.t, END, false]); }
for (const e of E) if (bad.has(e.seq)) { if (e.lane) e.lane.bad = true; else for (const x of serves.get(e.actor) || []) x.bad = true; }
for (const f of faults) for (const l of f.hosts) l.trouble = true;
function hit(e) {
  const a = e.at;
  if (e.inst && laneOf.has(e.inst)) return [laneOf.get(e.inst)];
  if (a.service && laneOf.has(a.service)) return [laneOf.get(a.service)];
  if (a.instances) return a.instances.split(',').map(n => laneOf.get(n)).filter(Boolean);
  if (a.hosts) { const ls = a.hosts.split(',').flatMap(h => byHost.get(h) || []); if (ls.length) return ls; }
  const h = e.host || a.host; if (h && byHost.has(h)) return byHost.get(h);
  return [laneOf.get(':redis')];
}

// ---- number of live instances
const changes = [];
for (const l of lanes) if (l.kind === 'svc') for (const b of l.bars) if (b[2] === 'up') { changes.push([b[0], 1]); if (b[1] < END) changes.push([b[1], -1]); }
changes.sort((a, b) => a[0] - b[0] || b[1] - a[1]);
const curve = []; let n = 0;
for (const c of changes) { n += c[1]; if (curve.length && curve[curve.length - 1][0] === c[0]) curve[curve.length - 1][1] = n; else curve.push([c[0], n]); }

// ---- view
const stage = $('stage'), sizer = $('sizer'), canvas = $('c'), ctx = canvas.getContext('2d');
let t0 = 0, t1 = END, shown = [], rowH = 22, labelW = 190, HEAD = 78, dpr = 1, W = 0, H = 0;
let pinned = null, hover = null, selViolation = -1, drag = null, chainOf = null;
const css = n => getComputedStyle(document.documentElement).getPropertyValue(n).trim();
let C = {};
function colours() { for (const k of ['bg', 'panel', 'ink', 'dim', 'line', 'zebra', 'up', 'busy', 'down', 'stopped', 'pull', 'deaf', 'fault', 'faultline', 'accent', 'bad', 'good', 'warn', 'hot']) C[k] = css('--' + k); }
function choose() {
  const q = $('filter').value.trim().toLowerCase(), which = $('which').value;
  let list = lanes.filter(l => l.kind !== 'svc' || ((!q || (l.label + ' ' + l.tier).toLowerCase().includes(q)) &&
    (which === 'all' || (which === 'touched' ? l.trouble || l.bad : l.acted))));
  const tierRank = t => { const i = D.tiers.indexOf(t); return i < 0 ? 99 : i; };
  const num = new Intl.Collator('en', {numeric: true});
  list = list.map((l, i) => [l, i]).sort((a, b) => {
    const [x, y] = [a[0], b[0]]; const r = k => k === 'ops' ? 0 : k === 'redis' ? 1 : 2;
    if (r(x.kind) !== r(y.kind)) return r(x.kind) - r(y.kind);
    if (x.kind !== 'svc') return a[1] - b[1];
    if ($('group').value === 'tier' && x.tier !== y.tier) return tierRank(x.tier) - tierRank(y.tier);
    return num.compare(x.host, y.host) || tierRank(x.tier) - tierRank(y.tier) || num.compare(x.label, y.label);
  }).map(a => a[0]);
  shown = list;
  const k = shown.length;
  rowH = k <= 14 ? 30 : k <= 40 ? 22 : k <= 120 ? 16 : 13;
  layout();
}
function layout() {
  W = stage.clientWidth; H = stage.clientHeight; dpr = window.devicePixelRatio || 1;
  labelW = Math.min(260, Math.max(130, W * .17));
  canvas.width = W * dpr; canvas.height = H * dpr; canvas.style.width = W + 'px'; canvas.style.height = H + 'px';
  sizer.style.height = Math.max(H, HEAD + shown.length * rowH + 10) + 'px';
  draw();
}
const X = t => labelW + (t - t0) / (t1 - t0) * (W - labelW - 14);
const T = x => t0 + (x - labelW) / (W - labelW - 14) * (t1 - t0);
function fmt(ms) { const s = ms / 1000, m = Math.floor(s / 60); const r = s - m * 60; return m + ':' + (r < 10 ? '0' : '') + r.toFixed(t1 - t0 < 20000 ? 3 : t1 - t0 < 200000 ? 1 : 0); }
function stampOf(ms) { const m = Math.floor(ms / 60000); const r = ms / 1000 - m * 60; return m + ':' + (r < 10 ? '0' : '') + r.toFixed(3); }
function ticks() { const span = t1 - t0, steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 12e5, 36e5]; const want = (W - labelW) / 95; const st = steps.find(s => span / s <= want) || 72e5; const out = []; for (let t = Math.ceil(t0 / st) * st; t <= t1; t += st) out.push(t); return out; }
let glyphs = [];
function draw() {
  colours(); glyphs = [];
  const top = stage.scrollTop; ctx.setTransform(dpr, 0, 0, dpr, 0, 0);
  ctx.fillStyle = C.bg; ctx.fillRect(0, 0, W, H); ctx.font = '12px system-ui, sans-serif'; ctx.textBaseline = 'middle';
  const first = Math.max(0, Math.floor(top / rowH) - 1), last = Math.min(shown.length, Math.ceil((top + H - HEAD) / rowH) + 1);
  let prevKey = '';
  for (let i = first; i < last; i++) { // ground
    const l = shown[i], y = HEAD + i * rowH - top, key = $('group').value === 'tier' ? l.tier : l.host;
    if (i % 2) { ctx.fillStyle = C.zebra; ctx.fillRect(0, y, W, rowH); }
    if (key !== prevKey && i > first) { ctx.fillStyle = C.line; ctx.fillRect(0, y, W, 1); }
    prevKey = key;
  }
  ctx.save(); ctx.beginPath(); ctx.rect(labelW, HEAD, W - labelW, H - HEAD); ctx.clip();
  for (const t of ticks()) { ctx.fillStyle = C.line; ctx.fillRect(Math.round(X(t)), HEAD, 1, H); }
  const rowOf = new Map(shown.map((l, i) => [l, i]));
  for (const f of faults) { // shades
    if (f.t1 < t0 || f.t0 > t1) continue;
    const x0 = X(Math.max(f.t0, t0 - 1)), x1 = Math.max(x0 + 2, X(Math.min(f.t1, t1 + 1)));
    for (const l of f.hosts) { const i = rowOf.get(l); if (i === undefined || i < first || i >= last) continue; const y = HEAD + i * rowH - top; ctx.fillStyle = C.fault; ctx.fillRect(x0, y, x1 - x0, rowH); ctx.fillStyle = C.faultline; ctx.fillRect(x0, y, 1.5, rowH); glyphs.push({x: x0, x2: x1, y, h: rowH, e: f.e, area: true}); }
  }
  for (let i = first; i < last; i++) lane1(shown[i], HEAD + i * rowH - top);
  links(rowOf, top);
  ctx.restore();
  for (let i = first; i < last; i++) { // labels
    const l = shown[i], y = HEAD + i * rowH - top;
    ctx.fillStyle = l.bad ? C.bad : l.kind === 'svc' ? C.ink : C.accent; ctx.font = (l.bad || l.kind !== 'svc' ? '600 ' : '') + (rowH < 15 ? '10.5px' : '12px') + ' system-ui, sans-serif';
    ctx.save(); ctx.beginPath(); ctx.rect(0, HEAD, labelW - 8, H); ctx.clip(); ctx.fillText((l.bad ? '✗ ' : '') + l.label, 12, y + rowH / 2 + .5); ctx.restore();
  }
  header(); 
  if (hover && hover.x !== undefined) { ctx.strokeStyle = C.dim; ctx.setLineDash([3, 3]); ctx.beginPath(); ctx.moveTo(hover.x, HEAD); ctx.lineTo(hover.x, H); ctx.stroke(); ctx.setLineDash([]); }
}
function header() {
  ctx.fillStyle = C.panel; ctx.fillRect(0, 0, W, HEAD); ctx.fillStyle = C.line; ctx.fillRect(0, HEAD - 1, W, 1);
  const total = D.members.length, y0 = 6, h = 40;
  ctx.font = '11px system-ui, sans-serif'; ctx.fillStyle = C.dim; ctx.fillText('instances up', 12, 18); 
  ctx.font = '600 12px system-ui, sans-serif'; ctx.fillStyle = C.ink;
  const at = hover && hover.t !== undefined ? hover.t : null;
  ctx.fillText(at === null ? 'of ' + total + (lowest() === total ? '' : ', lowest ' + lowest()) : liveAt(at) + ' of ' + total + ' at ' + fmt(at), 12, 35);
  ctx.save(); ctx.beginPath(); ctx.rect(labelW, 0, W - labelW, HEAD); ctx.clip();
  ctx.beginPath(); let y = v => y0 + h - (total ? v / total : 0) * h; ctx.moveTo(X(t0), y(0));
  let v = liveAt(t0); ctx.lineTo(X(t0), y(v));
  for (const p of curve) { if (p[0] <= t0) continue; if (p[0] > t1) break; ctx.lineTo(X(p[0]), y(v)); v = p[1]; ctx.lineTo(X(p[0]), y(v)); }
  ctx.lineTo(X(t1), y(v)); ctx.lineTo(X(t1), y(0)); ctx.closePath(); ctx.fillStyle = C.up; ctx.fill();
  ctx.fillStyle = C.dim; ctx.font = '11px system-ui, sans-serif'; ctx.textAlign = 'center';
  for (const t of ticks()) { ctx.fillText(fmt(t), Math.max(labelW + 16, Math.min(W - 30, X(t))), HEAD - 12); ctx.fillRect(Math.round(X(t)), HEAD - 5, 1, 4); }
  ctx.textAlign = 'left';
  for (const [s] of bad) { const e = E[bySeq.get(s)]; if (!e || e.t < t0 || e.t > t1) continue; ctx.fillStyle = C.bad; const x = X(e.t); ctx.beginPath(); ctx.moveTo(x - 5, 0); ctx.lineTo(x + 5, 0); ctx.lineTo(x, 8); ctx.fill(); }
  ctx.restore();
}
function liveAt(t) { let v = 0, lo = 0, hi = curve.length; while (lo < hi) { const m = lo + hi >> 1; if (curve[m][0] <= t) lo = m + 1; else hi = m; } if (lo) v = curve[lo - 1][1]; return v; }
function lowest() { return curve.reduce((a, c) => Math.min(a, c[1]), curve.length ? curve[0][1] : 0); }
const names = {up: 'up', busy: 'restarting', down: 'down', stopped: 'stopped'};
function lane1(l, y) {
  const pad = rowH < 15 ? 2 : rowH < 20 ? 3 : 5, h = rowH - 2 * pad;
  const put = (a, b, colour, yy, hh, what) => { if (b < t0 || a > t1) return; const x0 = Math.max(labelW, X(a)), x1 = Math.max(x0 + 1, Math.min(W, X(b))); ctx.fillStyle = colour; ctx.fillRect(x0, yy, x1 - x0, hh); if (what) glyphs.push({x: x0, x2: x1, y: yy, h: hh, what, a, b, l, area: true}); };
  if (l.kind === 'redis') { put(0, END, C.up, y + pad, h, 'up'); for (const b of redisBars) put(b[0], b[1], C.down, y + pad, h, b[2]); }
  for (const b of l.bars) put(b[0], b[1], C[b[2]], y + pad, h, names[b[2]]);
  const thin = Math.max(3, Math.round(h * .34));
  for (const p of l.pulls) put(p[0], p[1], p[2] ? C.pull : C.down, y + pad, thin, p[2] ? 'pulling' : 'pull failed');
  for (const d of l.deaf) put(d[0], d[1], C.deaf, y + rowH - pad - Math.max(2, thin - 1), Math.max(2, thin - 1), 'not subscribed');
  let lastX = -99;
  for (const e of l.ev) {
    const marked = bad.has(e.seq), pin = pinned === e.seq || (chainOf && chainOf.has(e.seq));
    if (e.t < t0 || e.t > t1 || (quiet.has(e.kind) && !marked && !pin)) continue;
    const x = X(e.t);
    if (!marked && !pin && x - lastX < 2.2) continue; // too dense to tell apart: zoom in
    lastX = x; glyph(e, x, y + rowH / 2, Math.min(7, rowH / 2 - 1.5), marked, pin);
    glyphs.push({x, y: y + rowH / 2, r: 8, e});
  }
}
function glyph(e, x, y, r, marked, pin) {
  const a = e.at; let col = C.ink, shape = 'dot';
  switch (e.kind) {
    case 'dispatch': case 'publish': shape = 'flag'; col = C.accent; break;
    case 'report': shape = 'square'; col = a.exit === '0' ? C.good : C.bad; break;
    case 'release': shape = 'tri'; col = C.accent; break;
    case 'ack': if (a.phase === 'accepted') { shape = 'tri'; col = C.accent; } else if (a.phase === 'refused') { shape = 'cross'; col = C.warn; } else { shape = a.status === 'failed' ? 'cross' : 'tick'; col = a.status === 'failed' ? C.bad : C.good; } break;
    case 'crash': case 'unit_failed': case 'unit_died': case 'start_limit': case 'key_no_ttl': case 'tree_torn': case 'no_report': shape = 'cross'; col = C.bad; break;
    case 'fault': shape = 'bolt'; col = C.faultline; break;
    case 'redis': shape = a.what === 'up' ? 'dot' : 'cross'; col = a.what === 'up' ? C.good : C.bad; break;
    default: col = C.dim; r *= .62;
  }
  if (marked || pin) { ctx.strokeStyle = marked ? C.bad : C.accent; ctx.lineWidth = 2; ctx.beginPath(); ctx.arc(x, y, r + 3.5, 0, 7); ctx.fillStyle = C.hot; ctx.fill(); ctx.stroke(); }
  ctx.fillStyle = ctx.strokeStyle = col; ctx.lineWidth = 1.8; ctx.beginPath();
  switch (shape) {
    case 'dot': ctx.arc(x, y, r * .6, 0, 7); ctx.fill(); break;
    case 'square': ctx.fillRect(x - r * .8, y - r * .8, r * 1.6, r * 1.6); break;
    case 'tri': ctx.moveTo(x - r * .55, y - r * .75); ctx.lineTo(x + r * .75, y); ctx.lineTo(x - r * .55, y + r * .75); ctx.fill(); break;
    case 'flag': ctx.moveTo(x, y - r); ctx.lineTo(x + r * 1.3, y - r * .4); ctx.lineTo(x, y + r * .2); ctx.fill(); ctx.fillRect(x - .8, y - r, 1.6, r * 2); break;
    case 'tick': ctx.moveTo(x - r * .7, y); ctx.lineTo(x - r * .1, y + r * .6); ctx.lineTo(x + r * .8, y - r * .7); ctx.stroke(); break;
    case 'cross': ctx.moveTo(x - r * .6, y - r * .6); ctx.lineTo(x + r * .6, y + r * .6); ctx.moveTo(x + r * .6, y - r * .6); ctx.lineTo(x - r * .6, y + r * .6); ctx.stroke(); break;
    case 'bolt': ctx.moveTo(x + r * .3, y - r); ctx.lineTo(x - r * .6, y + r * .2); ctx.lineTo(x, y + r * .2); ctx.lineTo(x - r * .3, y + r); ctx.lineTo(x + r * .6, y - r * .2); ctx.lineTo(x, y - r * .2); ctx.fill(); break;
  }
}
function links(rowOf, top) { // from cause to effect, for what is pinned or violated
  const list = chainOf ? [...chainOf] : selViolation >= 0 ? (D.violations[selViolation].events || []) : [];
  const pos = e => { const l = e.lane || (serves.get(e.actor) || [])[0]; const i = rowOf.get(l); return i === undefined ? null : [X(e.t), HEAD + i * rowH - top + rowH / 2]; };
  const pts = list.map(s => E[bySeq.get(s)]).filter(Boolean).sort((a, b) => a.seq - b.seq).map(pos).filter(Boolean);
  ctx.strokeStyle = C.bad; ctx.globalAlpha = .75; ctx.lineWidth = 1.4; ctx.setLineDash([5, 3]); ctx.beginPath();
  pts.forEach((p, i) => i ? ctx.bezierCurveTo((pts[i - 1][0] + p[0]) / 2, pts[i - 1][1], (pts[i - 1][0] + p[0]) / 2, p[1], p[0], p[1]) : ctx.moveTo(p[0], p[1]));
  ctx.stroke(); ctx.setLineDash([]); ctx.globalAlpha = 1;
}

// ---- tooltip and selection
const esc = s => String(s).replace(/[&<>"]/g, c => ({'&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;'}[c]));
function tipFor(g) {
  if (!g) return '';
  if (!g.e) return `<span class="k">${esc(g.l.label)}</span> ${esc(g.what)}<br><span class="t">${stampOf(g.a)} – ${stampOf(g.b)} (${((g.b - g.a) / 1000).toFixed(2)} s)</span>`;
  const e = g.e, rows = Object.entries(e.at).filter(([k, v]) => v !== '').map(([k, v]) => `<tr><td>${esc(k)}</td><td>${esc(v.length > 160 ? v.slice(0, 160) + '…' : v)}</td></tr>`).join('');
  const cause = e.cause && bySeq.has(e.cause) ? `<tr><td>because of</td><td>#${e.cause} ${esc(E[bySeq.get(e.cause)].kind)}</td></tr>` : '';
  return `<span class="k">${esc(e.kind)}</span>${e.op ? ' [' + esc(e.op) + ']' : ''} <span class="t">#${e.seq} at ${stampOf(e.t)}</span><br>${esc(e.actor)}${e.inst && e.inst !== e.actor ? ' → ' + esc(e.inst) : ''}` +
    (e.detail ? `<br>${esc(e.detail)}` : '') + `<table>${rows}${cause}</table>` + (bad.has(e.seq) ? `<span class="v">✗ ${esc([...new Set(bad.get(e.seq))].join(', '))}</span>` : '');
}
function find(x, y) {
  let best = null, d = 1e9;
  for (const g of glyphs) if (!g.area) { const q = Math.hypot(g.x - x, g.y - y); if (q < Math.max(9, g.r) && q < d) { d = q; best = g; } }
  if (best) return best;
  for (const g of glyphs) if (g.area && x >= g.x - 2 && x <= g.x2 + 2 && y >= g.y && y <= g.y + g.h) { best = g; if (!g.e) continue; }
  return best;
}
canvas.addEventListener('mousemove', ev => {
  const r = canvas.getBoundingClientRect(), x = ev.clientX - r.left, y = ev.clientY - r.top;
  if (drag) { const dt = (drag.x - x) / (W - labelW - 14) * (drag.t1 - drag.t0); view(drag.t0 + dt, drag.t1 + dt); if (drag.y !== null) stage.scrollTop = drag.top + drag.y - y; drag.moved = drag.moved || Math.abs(drag.x - x) > 3 || Math.abs(drag.y - y) > 3; return; }
  hover = x > labelW ? {x, t: T(x)} : null; draw();
  const g = y > HEAD ? find(x, y) : null, tip = $('tip');
  canvas.style.cursor = g && g.e ? 'pointer' : 'default';
  if (!g) { tip.style.display = 'none'; return; }
  tip.innerHTML = tipFor(g); tip.style.display = 'block';
  tip.style.left = Math.min(ev.clientX + 14, innerWidth - tip.offsetWidth - 8) + 'px'; tip.style.top = Math.min(ev.clientY + 16, innerHeight - tip.offsetHeight - 8) + 'px';
});
canvas.addEventListener('mouseleave', () => { $('tip').style.display = 'none'; hover = null; draw(); });
canvas.addEventListener('mousedown', ev => { const r = canvas.getBoundingClientRect(); drag = {x: ev.clientX - r.left, y: ev.clientY - r.top, t0, t1, top: stage.scrollTop}; });
window.addEventListener('mouseup', ev => {
  if (drag && !drag.moved && ev.target === canvas) { const r = canvas.getBoundingClientRect(), x = ev.clientX - r.left, y = ev.clientY - r.top, g = y > HEAD ? find(x, y) : null; if (g && g.e) pin(g.e.seq); else if (x < labelW && y > HEAD) { const l = shown[Math.floor((y - HEAD + stage.scrollTop) / rowH)]; if (l) showLane(l); } else { pin(null); } }
  drag = null;
});
canvas.addEventListener('wheel', ev => {
  if (ev.shiftKey) return;
  const r = canvas.getBoundingClientRect(), x = ev.clientX - r.left;
  if (!(ev.ctrlKey || ev.metaKey) && x < labelW) return; // over the names the wheel scrolls
  if (!(ev.ctrlKey || ev.metaKey) && sizer.offsetHeight > H + 4 && !ev.altKey) return; // many lanes: the wheel scrolls, with ctrl it zooms
  ev.preventDefault(); const at = T(Math.max(labelW, x)), k = Math.exp(ev.deltaY * .0016); view(at - (at - t0) * k, at + (t1 - at) * k);
}, {passive: false});
canvas.addEventListener('keydown', ev => {
  const s = t1 - t0, k = ev.key;
  if (k === '+' || k === '=') view(t0 + s * .15, t1 - s * .15); else if (k === '-') view(t0 - s * .2, t1 + s * .2); else if (k === 'ArrowLeft') view(t0 - s * .15, t1 - s * .15); else if (k === 'ArrowRight') view(t0 + s * .15, t1 + s * .15); else if (k === '0') view(0, END); else if (k === 'Escape') pin(null); else return;
  ev.preventDefault();
});
function view(a, b) { const span = Math.min(END, Math.max(5, b - a)); a = Math.max(0, Math.min(a, END - span)); t0 = a; t1 = a + span; draw(); }
function pin(seq) { pinned = seq; chainOf = null; $('chain').hidden = seq === null; draw(); if (seq !== null) { const i = list.findIndex(e => e.seq === seq); if (i >= 0) $('rows').scrollTop = Math.max(0, i * 18 - 60); } rows(); }
function focusOn(seqs) {
  const es = seqs.map(s => E[bySeq.get(s)]).filter(Boolean); if (!es.length) return;
  const a = Math.min(...es.map(e => e.t)), b = Math.max(...es.map(e => e.t)), padT = Math.max(1500, (b - a) * .25); view(a - padT, b + padT);
  const l = es.map(e => e.lane || (serves.get(e.actor) || [])[0]).filter(x => x && x.kind === 'svc')[0], i = shown.indexOf(l);
  if (i >= 0) stage.scrollTop = Math.max(0, i * rowH - H / 2);
}

// ---- the list of events below
let list = E, scope = null;
function showLane(l) { scope = {title: l.label, f: e => e.lane === l || (serves.get(e.actor) || []).includes(l)}; search(); }
function search() {
  const q = $('search').value.trim().toLowerCase();
  list = E.filter(e => (!scope || scope.f(e)) && (!q || line(e).toLowerCase().includes(q)));
  $('logtitle').textContent = scope ? scope.title : 'Events'; $('clear').hidden = !scope && !q; $('count').textContent = list.length + (list.length === E.length ? '' : ' of ' + E.length);
  rows();
}
function line(e) { const a = Object.entries(e.at).filter(([k, v]) => v !== '' && v.length < 90 && !['id', 'issued', 'expires', 'link', 'gateway_deadline', 'gateway_deadline_ms'].includes(k)).map(([k, v]) => k + '=' + v).join(' '); return `${stampOf(e.t).padStart(9)}  #${String(e.seq).padEnd(5)} ${e.kind.padEnd(16)} ${e.actor}${e.inst && e.inst !== e.actor ? ' ' + e.inst : ''}${e.op ? ' [' + e.op + ']' : ''} ${a}${e.detail ? ' — ' + e.detail : ''}`; }
function rows() {
  const box = $('rows'), from = Math.max(0, Math.floor(box.scrollTop / 18) - 3), to = Math.min(list.length, from + Math.ceil(box.clientHeight / 18) + 8);
  let h = `<div style="height:${list.length * 18}px"></div>`;
  for (let i = from; i < to; i++) { const e = list[i]; h += `<div class="row${pinned === e.seq ? ' sel' : ''}${bad.has(e.seq) ? ' bad' : ''}" style="top:${i * 18}px" data-seq="${e.seq}">${esc(line(e))}</div>`; }
  const top = box.scrollTop; box.innerHTML = h; box.scrollTop = top;
}
$('rows').addEventListener('scroll', rows);
$('rows').addEventListener('click', ev => { const s = ev.target.closest('.row'); if (!s) return; const seq = +s.dataset.seq; pinned = seq; chainOf = null; $('chain').hidden = false; const e = E[bySeq.get(seq)]; if (e.t < t0 || e.t > t1) view(e.t - (t1 - t0) / 2, e.t + (t1 - t0) / 2); const i = shown.indexOf(e.lane); if (i >= 0 && (i * rowH < stage.scrollTop || i * rowH > stage.scrollTop + H - HEAD - rowH)) stage.scrollTop = i * rowH - H / 2; draw(); rows(); });
$('chain').onclick = () => { const seqs = []; for (let s = pinned; s && bySeq.has(s) && !seqs.includes(s); s = E[bySeq.get(s)].cause) seqs.push(s); chainOf = new Set(seqs); scope = {title: 'What led to #' + pinned, f: e => chainOf.has(e.seq)}; focusOn(seqs); search(); draw(); };
$('clear').onclick = () => { scope = null; chainOf = null; selViolation = -1; $('search').value = ''; document.querySelectorAll('.violation').forEach(x => x.classList.remove('sel')); search(); draw(); };
$('search').addEventListener('input', search);

// ---- the frame
$('title').textContent = D.name; document.title = D.name + ' seed ' + D.seed;
$('desc').textContent = D.description || '';
const ok = !D.violations.length;
$('verdict').textContent = ok ? 'every promise kept' : D.violations.length + (D.violations.length === 1 ? ' promise broken' : ' promises broken'); $('verdict').className = 'verdict ' + (ok ? 'good' : 'bad');
$('meta').innerHTML = `seed <b>${esc(D.seed)}</b> · <b>${D.members.length}</b> instances on <b>${byHost.size}</b> hosts · <b>${(END / 1000).toFixed(0)} s</b> virtual · <b>${E.length}</b> events` + (D.ops.length ? ' · ' + D.ops.map(o => `${esc(o.op)}: exit <b>${esc(o.exit || '–')}</b>${o.took ? ' in <b>' + (o.took / 1000).toFixed(1) + ' s</b>' : ''}`).join(' · ') : '');
D.violations.forEach((v, i) => {
  const b = document.createElement('button'); b.className = 'violation'; b.innerHTML = `<b>✗ ${esc(v.check)}</b>${esc(v.detail)}`;
  b.onclick = () => { selViolation = i; chainOf = null; document.querySelectorAll('.violation').forEach((x, k) => x.classList.toggle('sel', k === i)); const s = new Set(v.events || []); scope = {title: v.check, f: e => s.has(e.seq)}; if ($('which').value !== 'all' || $('filter').value) { $('which').value = 'all'; $('filter').value = ''; choose(); } focusOn(v.events || []); search(); draw(); };
  $('violations').appendChild(b);
});
$('legend').innerHTML = [['up', 'up'], ['busy', 'restarting'], ['down', 'down'], ['stopped', 'stopped'], ['pull', 'pulling'], ['deaf', 'not subscribed'], ['faultline', 'fault']].map(([c, t]) => `<span><i style="background:var(--${c})"></i>${t}</span>`).join('') + '<span>▸ accepted &nbsp;✓ done &nbsp;✕ failed or refused &nbsp;⚑ publish &nbsp;■ report</span>';
$('fit').onclick = () => view(0, END);
$('zoomop').onclick = () => { const es = E.filter(e => ['dispatch', 'publish', 'report'].includes(e.kind) || e.kind === 'restart_queued' || e.kind === 'unit_active'); if (es.length) { const a = E.find(e => e.kind === 'publish') || es[0]; const b = es[es.length - 1]; view(a.t - 2000, b.t + 2000); } };
$('theme').onclick = () => { const r = document.documentElement, dark = r.dataset.theme ? r.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches; r.dataset.theme = dark ? 'light' : 'dark'; draw(); };
for (const id of ['which', 'group']) $(id).onchange = choose;
$('filter').addEventListener('input', choose);
stage.addEventListener('scroll', draw); window.addEventListener('resize', layout); matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
if (D.members.length > 60 && lanes.some(l => l.trouble || l.bad)) $('which').value = 'touched';
choose(); search();
if (D.violations.length) document.querySelector('.violation').click(); else if (D.ops.length) $('zoomop').click();
