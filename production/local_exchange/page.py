"""The control page of the local exchange: one file of HTML, style and script that asks `/control` and nobody else."""

PAGE = r'''<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Local exchange</title>
<style>
:root { --ink:#1d2733; --soft:#5c6b7a; --line:#dde3ea; --paper:#f4f6f9; --card:#fff; --accent:#1f6feb; --bad:#c4314b; --good:#1a7f4b; --warn:#9a6700; color-scheme: light dark }
@media (prefers-color-scheme: dark) {
  :root { --ink:#e3e9f0; --soft:#93a1b0; --line:#2c3642; --paper:#11161c; --card:#1a212a; --accent:#5b9bff; --bad:#ff7b8e; --good:#4cc38a; --warn:#e2b04a } }
* { box-sizing: border-box }
body { margin:0; background:var(--paper); color:var(--ink); font:14px/1.45 system-ui, sans-serif }
header { display:flex; flex-wrap:wrap; align-items:center; gap:8px 24px; padding:14px 24px; background:var(--card); border-bottom:1px solid var(--line); position:sticky; top:0; z-index:1 }
h1 { font-size:18px; margin:0 } h2 { font-size:12px; letter-spacing:.06em; text-transform:uppercase; color:var(--soft); margin:0 0 10px } h3 { font-size:13px; margin:14px 0 6px }
header div { color:var(--soft) } header b { color:var(--ink); font-variant-numeric:tabular-nums } .push { margin-left:auto }
main { display:grid; grid-template-columns:minmax(0,1fr) minmax(0,1fr); gap:16px; padding:16px 24px; max-width:1500px; margin:auto }
@media (max-width:900px) { main { grid-template-columns:minmax(0,1fr) } }
section { background:var(--card); border:1px solid var(--line); border-radius:10px; padding:16px; overflow-x:auto } .wide { grid-column:1/-1 }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums } th { text-align:left; font-weight:500; color:var(--soft); font-size:12px }
th,td { padding:4px 10px 4px 0; border-bottom:1px solid var(--line); white-space:nowrap } tr:last-child td { border-bottom:0 } .n { text-align:right }
button { font:inherit; padding:4px 11px; border:1px solid var(--line); border-radius:7px; background:var(--paper); color:var(--ink); cursor:pointer }
button:hover { border-color:var(--accent) } button.main { background:var(--accent); border-color:var(--accent); color:var(--card) } button.on { background:var(--bad); border-color:var(--bad); color:var(--card) }
input,select { font:inherit; padding:4px 8px; border:1px solid var(--line); border-radius:7px; background:var(--card); color:var(--ink); min-width:0 }
td form { flex-wrap:nowrap !important }
form { display:flex; flex-wrap:wrap; gap:7px; align-items:center; margin:0 0 9px } form label { color:var(--soft); min-width:92px } .row { display:flex; flex-wrap:wrap; gap:7px; align-items:center; margin:4px 0 9px }
.buy { color:var(--good) } .sell,.bad { color:var(--bad) } .soft { color:var(--soft) } .tag { padding:1px 8px; border-radius:9px; border:1px solid; font-size:12px } .ok { color:var(--good) } .warn { color:var(--warn) }
#said { position:fixed; bottom:18px; left:50%; transform:translateX(-50%); padding:9px 18px; border-radius:9px; background:var(--ink); color:var(--card); opacity:0; transition:opacity .2s; pointer-events:none; max-width:90vw }
#said.show { opacity:1 } #said.no { background:var(--bad) }
</style>
</head>
<body>
<header>
  <h1>Local exchange</h1>
  <div>time <b id="time"></b></div><div>bars <b id="bars"></b></div><div>websockets <b id="sockets"></b></div><div id="ill"></div>
  <span class="push"></span>
  <button id="release" class="main">Release a bar</button><button id="clear">Clear all faults</button>
</header>
<main>
  <section><h2>Markets</h2><table id="markets"></table></section>
  <section><h2>What is set, and how often it fired</h2><table id="set"></table></section>
  <section><h2>Faults of single requests</h2>
    <div class="soft">Press one: it meets the next order that is sent.</div>
    <div class="row" id="quick"></div>
    <form id="fault"><label>any other</label><select name="route"></select><select name="kind"></select>
      <input name="arg" placeholder="arg, in JSON" size="22"><input name="times" value="1" size="3" title="how often; empty is until cleared"><button>Set</button></form>
    <form id="weather"><label>by chance</label><input name="rate" value="0.15" size="5" title="share of requests"> of requests, seed <input name="seed" value="1" size="4"><button>Set</button></form>
  </section>
  <section><h2>The venue</h2>
    <form data-field="skew" data-type="int"><label>clock skew</label><input name="v" placeholder="ms" size="9"><button>Set</button></form>
    <form data-field="weight_limit" data-type="int"><label>weight limit</label><input name="v" placeholder="a minute" size="9"><button>Set</button></form>
    <form data-field="max_fill" data-type="text"><label>largest fill</label><input name="v" placeholder="quantity" size="9"><button>Set</button></form>
    <form id="ban"><label>ban</label><input name="v" placeholder="seconds" size="9"><button>Set</button></form>
    <div class="row"><button id="maintenance">Maintenance</button><button id="can_withdraw">Keys may withdraw</button><button id="restart">Empty restart</button></div>
    <h3>Streams</h3>
    <div class="row"><button data-press='{"drop_ws":1001}'>Close (1001)</button><button data-press='{"drop_ws":1006}'>Break (1006)</button>
      <button data-press='{"freeze_ws":true}'>Half-open</button><button data-press='{"end_user_stream":true}'>End user stream</button><button data-press='{"flood":2000}'>Flood</button><button id="mute">Mute all</button></div>
    <div class="row"><span class="soft">the next fill:</span><button data-press='{"user_events":["drop"]}'>dropped</button><button data-press='{"user_events":["repeat"]}'>twice</button>
      <button data-press='{"user_events":["hold"]}'>late</button></div>
  </section>
  <section class="wide"><h2>Account <select id="account"></select></h2>
    <div class="row" style="gap:24px;align-items:flex-start">
      <div><h3>Balances</h3><table id="balances"></table></div>
      <div style="flex:1;min-width:300px">
        <h3>By hand</h3>
        <form id="trade"><label>trade</label><select name="side"><option>buy</option><option>sell</option></select><input name="quantity" placeholder="quantity" size="9">
          <select name="symbol"></select><input name="price" placeholder="price, or at market" size="15"><button>Send</button></form>
        <form id="money"><label>money</label><select name="what"><option value="deposit">deposit</option><option value="withdraw">withdraw</option><option value="free">set free to</option></select>
          <input name="amount" placeholder="amount" size="9"><input name="asset" placeholder="asset" size="6" value="USDT"><button>Do</button></form>
      </div>
    </div>
    <h3>Open orders</h3><table id="orders"></table>
    <h3>Last trades</h3><table id="trades"></table>
  </section>
</main>
<div id="said"></div>
<script>
const $ = id => document.getElementById(id), utc = ms => new Date(ms).toISOString().replace('T', ' ').slice(0, 19);
const QUICK = {lose_request:null, lose_response:null, truncate:null, delay:0.9, delay_after:15, http:503, http_after:502, garbage:null, stale:null};
let now = null, told;
function say(text, no) { const box = $('said'); box.textContent = text; box.className = 'show' + (no ? ' no' : ''); clearTimeout(told); told = setTimeout(() => box.className = '', no ? 6000 : 1500) }
async function ask(path, given) {
  const answer = await fetch(path, given === undefined ? {} : {method:'POST', body:JSON.stringify(given)}), body = await answer.json();
  if (!answer.ok) throw new Error(body.msg || answer.status);
  return body }
async function press(path, given) { try { await ask(path, given); say('done'); await show() } catch (error) { say(error.message, true) } }
const venue = given => press('/control/venue', given), faults = given => press('/control/faults', given);
function table(id, heads, rows, empty) {
  const body = document.createElement('tbody'), add = (cells, kind) => { const row = body.insertRow(); for (const cell of cells) {
    const box = document.createElement(kind); if (cell instanceof Node) box.append(cell); else { const [text, style] = Array.isArray(cell) ? cell : [cell, '']; box.textContent = text; box.className = style } row.append(box) } };
  if (rows.length) { add(heads, 'th'); rows.forEach(row => add(row, 'td')) } else add([[empty, 'soft']], 'td');
  $(id).replaceChildren(body) }
function button(text, act, on) { const made = document.createElement('button'); made.textContent = text; made.onclick = act; if (on) made.className = 'on'; return made }
function fill(select, options) { if (select.options.length !== options.length) select.replaceChildren(...options.map(each => new Option(each))) }
const whole = text => /^-?\d+$/.test(text) ? Number(text) : text;   // what is no number is sent as it is, and refused in words
const said = fault => fault.arg === null ? '' : ' ' + JSON.stringify(fault.arg);
async function show() {
  try { now = await ask('/control/overview') } catch (error) { $('ill').replaceChildren(Object.assign(document.createElement('span'), {className:'tag bad', textContent:'not reachable'})); return }
  $('time').textContent = utc(now.time); $('bars').textContent = now.closed + ' of ' + now.bars + ' (' + now.timeframe + ')'; $('sockets').textContent = now.sockets;
  const well = now.faults.venue, ill = [];
  if (well.skew) ill.push('skew ' + well.skew + ' ms'); if (well.maintenance) ill.push('maintenance'); if (well.weight_limit !== null) ill.push('weight limit ' + well.weight_limit);
  if (well.banned_until > now.time) ill.push('banned until ' + utc(well.banned_until)); if (well.muted.length) ill.push('muted ' + well.muted.join(', ')); if (now.max_fill) ill.push('largest fill ' + now.max_fill);
  if (well.can_withdraw) ill.push('keys may withdraw'); if (now.done) ill.push('the bars are over');
  $('ill').replaceChildren(...(ill.length ? ill : ['well']).map(text => Object.assign(document.createElement('span'), {className:'tag ' + (ill.length ? 'warn' : 'ok'), textContent:text, style:'margin-right:6px'})));
  $('release').disabled = now.done; $('maintenance').className = well.maintenance ? 'on' : ''; $('can_withdraw').className = well.can_withdraw ? 'on' : ''; $('mute').className = well.muted.includes('*') ? 'on' : '';
  if (!$('markets').contains(document.activeElement) || document.activeElement.tagName !== 'INPUT') table('markets', ['market', ['price', 'n'], 'state', ''], now.markets.map(each => {
    const form = document.createElement('form'), price = Object.assign(document.createElement('input'), {size:8, placeholder:'price', title:'step ' + each.step + ', tick ' + each.tick}); form.style.margin = 0;
    form.append(price, button('Jump'), button(each.halted ? 'End halt' : 'Halt', event => { event.preventDefault(); venue({halted: each.halted ? now.halted.filter(s => s !== each.symbol) : [...now.halted, each.symbol]}) }, each.halted));
    form.onsubmit = event => { event.preventDefault(); if (price.value) { price.blur(); venue({price:{[each.symbol]:price.value}}) } };
    return [each.symbol, [Number(each.price).toFixed((each.tick.split('.')[1] || '').length), 'n'], each.halted ? ['halted', 'bad'] : each.open ? ['open', 'ok'] : ['closed', 'soft'], form] }), 'none');
  table('set', ['route', 'what', ['left', 'n'], ['fired', 'n']], [
    ...now.faults.faults.map(each => [each.route, each.kind + said(each), [each.left === null ? 'until cleared' : each.left, 'n'], ['', 'n']]),
    ...now.faults.weather.map(each => [each.routes.join(', '), 'by chance, ' + each.rate * 100 + ' %, seed ' + each.seed, ['until cleared', 'n'], ['', 'n']]),
    ...now.faults.user_events.map(each => ['user stream', 'next fill: ' + each, [1, 'n'], ['', 'n']]),
    ...now.faults.fired.map(each => [[each.route, 'soft'], [each.kind, 'soft'], ['', 'n'], [each.times, 'n']])], 'nothing');
  fill($('fault').route, now.routes); fill($('fault').kind, now.kinds); fill($('account'), now.accounts.map(each => each.name)); fill($('trade').symbol, now.markets.map(each => each.symbol));
  if (!$('fault').dataset.ready) { $('fault').route.value = 'POST /api/v3/order'; $('fault').dataset.ready = 1 }
  const account = now.accounts.find(each => each.name === $('account').value) || now.accounts[0];
  table('balances', ['asset', ['free', 'n'], ['locked', 'n']], account.balances.map(each => [each.asset, [each.free, 'n'], [each.locked, 'n']]), 'none');
  const side = each => [each.side, each.side];
  table('orders', ['id', 'client id', 'market', 'side', 'type', ['quantity', 'n'], ['filled', 'n'], ['price', 'n'], ['stop', 'n'], 'status', ''], account.open_orders.map(each =>
    [each.id, each.client_id, each.symbol, side(each), each.type, [each.quantity, 'n'], [each.filled, 'n'], [each.price, 'n'], [each.stop_price, 'n'], each.status,
     button('Cancel', () => venue({account:account.name, cancel:each.client_id}))]), 'none of ' + account.orders + ' is open');
  table('trades', ['id', 'time', 'client id', 'market', 'side', ['quantity', 'n'], ['price', 'n'], ['fee', 'n']], account.trades.slice(0, 15).map(each =>
    [each.id, utc(each.time), each.client_id, each.symbol, side(each), [each.quantity, 'n'], [each.price, 'n'], [each.fee + ' ' + each.fee_asset, 'n']]), 'none yet') }
const form = (id, act) => $(id).onsubmit = event => { event.preventDefault(); act(event.target) };
for (const [kind, arg] of Object.entries(QUICK)) $('quick').append(button(kind + (arg === null ? '' : ' ' + arg), () => faults([{route:'POST /api/v3/order', kind, arg}])));
$('release').onclick = () => press('/control/release', {through:now.current});
$('clear').onclick = async () => { const books = {...(now.halted.length ? {halted:[]} : {}), ...(now.max_fill ? {max_fill:null} : {})};
  await faults({}); if (Object.keys(books).length) await venue(books) };
$('maintenance').onclick = () => venue({maintenance:!now.faults.venue.maintenance});
$('can_withdraw').onclick = () => venue({can_withdraw:!now.faults.venue.can_withdraw});
$('mute').onclick = () => venue({muted: now.faults.venue.muted.includes('*') ? [] : ['*']});
$('restart').onclick = () => confirm('Forget every order, trade and balance?') && venue({restart:true});
$('account').onchange = show;
document.querySelectorAll('[data-press]').forEach(each => each.onclick = () => venue(JSON.parse(each.dataset.press)));
document.querySelectorAll('[data-field]').forEach(each => each.onsubmit = event => { event.preventDefault(); const text = each.v.value.trim(), none = each.dataset.field === 'skew' ? 0 : null;
  venue({[each.dataset.field]: text === '' ? none : each.dataset.type === 'int' ? whole(text) : text}) });
form('ban', f => venue({banned_until: isNaN(f.v.value) ? f.v.value : f.v.value ? now.time + now.faults.venue.skew + Math.round(f.v.value * 1000) : 0}));
form('fault', f => { let arg = null; if (f.arg.value.trim()) { try { arg = JSON.parse(f.arg.value) } catch { arg = f.arg.value } }
  faults([{route:f.route.value, kind:f.kind.value, arg, times:f.times.value ? whole(f.times.value) : null}]) });
form('weather', f => faults([{rate:isNaN(f.rate.value) ? f.rate.value : Number(f.rate.value), seed:whole(f.seed.value)}]));
form('trade', f => venue({account:$('account').value, trade:{symbol:f.symbol.value, side:f.side.value, quantity:f.quantity.value, ...(f.price.value ? {price:f.price.value} : {})}}));
form('money', f => { const what = f.what.value, amount = what === 'withdraw' ? '-' + f.amount.value : f.amount.value; venue({account:$('account').value, [what === 'free' ? 'free' : 'deposit']:{[f.asset.value.toUpperCase()]:amount}}) });
show(); setInterval(() => document.hidden || show(), 1000);
</script>
</body>
</html>
'''
