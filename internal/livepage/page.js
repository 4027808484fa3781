"use strict";
(function () {
  const $ = (id) => document.getElementById(id);
  const group = new Intl.NumberFormat("en-US");
  const names = ["Listed", "Written", "Done before", "Dropped", "Duplicates", "Unrouted", "Dead letters", "Vanished", "Pending", "Server counts", "Size"];
  const at = [0, 2, 1, 3, 4, 5, 6, 7, 8, 9, 10]; // places of the columns in a row's numbers
  const always = new Set([0, 2, 9, 10]); // the others stand there once they are more than zero
  const rank = {"failed": 0, "never listed": 0, "incomplete": 1, "parked": 2, "trying again": 3, "at work": 4, "waiting": 5, "complete": 6};
  const page = 100; // rows shown at first, and with each "more"
  const silence = 8000; // the server says something every two seconds

  let run = null, id = "", since = 0, state = "", end = null, where = null, states = {};
  let rows = [], boxes = new Map(), open = new Set(), news = [];
  let order = [], stale = true, limit = page, used = "", nodes = new Map();
  let source = null, heard = 0, tries = 0, retry = 0, asleep = 0, skew = 0, drawing = false;

  // Words.
  function size(n) {
    const units = [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]];
    for (const u of units) if (n >= u[0]) return (n / u[0]).toFixed(1).replace(/\.0$/, "") + " " + u[1];
    return Math.round(n) + " B";
  }
  const two = (n) => (n < 10 ? "0" : "") + n;
  function clock(ms) {
    const d = new Date(ms);
    return two(d.getHours()) + ":" + two(d.getMinutes()) + ":" + two(d.getSeconds());
  }
  function span(ms) {
    const s = Math.max(0, Math.floor(ms / 1000));
    if (s < 60) return s + " s";
    if (s < 3600) return Math.floor(s / 60) + ":" + two(s % 60) + " min";
    return Math.floor(s / 3600) + ":" + two(Math.floor(s / 60) % 60) + " h";
  }
  const many = (n, one, more) => group.format(n) + " " + (n === 1 ? one : more);
  function say(el, text) { if (el.textContent !== text) el.textContent = text; }
  function look(el, kind) { if (el.className !== kind) el.className = kind; }
  function make(tag, kind, text) {
    const el = document.createElement(tag);
    if (kind) el.className = kind;
    if (text !== undefined) el.textContent = text;
    return el;
  }

  // The stream. It is opened anew for each set of open accounts, and says what
  // the page has already.
  function connect() {
    clearTimeout(retry);
    retry = 0;
    if (source) source.close();
    heard = Date.now();
    const query = "?since=" + since + "&id=" + encodeURIComponent(id) + "&open=" + (run ? Array.from(open).join(",") : "few");
    source = new EventSource("events" + query);
    source.onmessage = (e) => {
      heard = Date.now();
      tries = 0;
      take(JSON.parse(e.data));
    };
    source.onerror = lost;
  }
  function lost() {
    if (source) source.close();
    source = null;
    if (state === "ended" || document.hidden && asleep < 0) return;
    tries++;
    if (!retry) retry = setTimeout(connect, Math.min(10000, 500 * Math.pow(2, tries - 1)));
    if (tries > 1) plan();
  }
  function watch() {
    if (source && Date.now() - heard > silence) lost(); // the machine slept, or the network is gone
    elapsed();
  }

  function take(f) {
    skew = f.now - Date.now();
    if (f.run) {
      run = f.run;
      rows = [];
      boxes = new Map();
      news = [];
      nodes.forEach((n) => n.body.remove());
      nodes = new Map();
      if (f.id !== id) open = new Set(run.accounts <= 3 ? Array.from({length: run.accounts}, (_, i) => i) : []);
      stale = true;
    }
    id = f.id;
    since = f.v;
    state = f.state;
    end = f.end || null;
    where = f.where;
    states = f.states;
    (f.accounts || []).forEach((r) => {
      const old = rows[r.i];
      if (!old || old.t !== r.t || old.e !== r.e) stale = true;
      rows[r.i] = r;
    });
    Object.keys(f.boxes || {}).forEach((i) => boxes.set(Number(i), f.boxes[i]));
    if (f.failures) failures(f.failures);
    if (f.news) news = news.concat(f.news).slice(-30);
    if (f.news || f.run) tell();
    if (f.chart) chart(f.chart);
    if (state === "ended") {
      source.close();
      source = null;
    }
    plan();
  }

  // Drawing is for who looks: at most once a frame of the screen.
  function plan() {
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(() => { drawing = false; draw(); });
  }
  function draw() {
    banner();
    if (!run) return;
    head();
    overall();
    parts();
    choices();
    table();
  }

  function elapsed() {
    if (!run) return;
    const to = end ? end.at : (source ? Date.now() : heard) + skew;
    say($("about"), "Run " + run.number + " · began " + clock(run.began) + (end ? " · ended " + clock(end.at) : "") + " · " + span(to - run.began));
  }
  function head() {
    document.body.classList.toggle("running", state !== "ended"); // what is pending is no trouble yet
    say($("name"), run.pipeline);
    const words = state === "ended" ? end.text : !source ? "no answer" : state;
    say($("badge"), words);
    look($("badge"), "badge" + (state !== "ended" ? state === "running" && source ? " good" : "" : end.exit === 0 ? " good" : where.sum[8] || end.error ? " bad" : ""));
    say($("foot"), run.file + " · pipeline " + run.version);
    elapsed();
  }
  function banner() {
    const b = $("banner"), lines = [];
    let kind = "";
    if (state === "ended") {
      kind = end.exit === 0 ? "good" : end.exit === 1 || end.exit === 4 ? "bad" : "";
      lines.push("The run has ended: " + end.text + "." + (end.exit ? " Its exit code is " + end.exit + "." : ""));
      if (end.error) lines.push(end.error);
      if (end.hint) lines.push(end.hint);
    } else if (!source && tries > 1) {
      kind = "bad";
      lines.push(run ? "The run doesn't answer. Its process has gone, or this machine can't reach it. What you see is of " + clock(heard) + "." :
        "Nothing answers here: the run has ended, or it asks for the token in the URL that it printed.");
      lines.push("This page goes on trying. \"pipeline status\" says where the export stands.");
    } else if (state === "stopping") lines.push("The run is stopping: what is in flight is finished and committed.");
    const text = lines.join("\n");
    if (b.dataset.text === text) return;
    b.dataset.text = text;
    b.className = kind;
    b.replaceChildren(...lines.map((l) => make("p", "", l)));
  }

  function overall() {
    const s = where.sum, most = where.todo + Math.max(0, where.expected - where.listed);
    const ended = state === "ended";
    const done = ended ? s[0] - s[8] : where.settled, of = ended ? s[0] : most;
    const percent = of > 0 ? Math.min(100, Math.floor(100 * done / of)) : ended ? 100 : 0;
    say($("done"), ended ? group.format(done) + " of " + many(of, "message", "messages") + " listed accounted for" :
      of > 0 ? group.format(done) + " of " + many(of, "message", "messages") + " done, " + percent + " %" : "Nothing to export so far");
    say($("left"), ended ? "" : [where.eta ? where.eta + " left" : "", where.expected > where.listed ? group.format(where.listed) + " of " + group.format(where.expected) + " listed" : ""].filter(Boolean).join(" · "));
    $("bar").setAttribute("aria-valuenow", percent);
    look($("bar"), "bar" + (ended ? s[8] || end.error ? " ended bad" : " ended" : ""));
    $("bar").firstChild.style.width = (of > 0 ? Math.min(100, 100 * done / of) : percent) + "%";
    say($("t-listed"), group.format(s[0]));
    say($("t-listed-of"), "messages listed, in " + many(where.boxes, "mailbox", "mailboxes"));
    say($("t-written"), group.format(s[2]));
    say($("t-size"), size(s[10]));
    say($("t-rate"), "fetched" + (!ended && where.octets_per_second > 0 ? ", " + size(where.octets_per_second) + "/s" : "") +
      (!ended && where.messages_per_second >= 1 ? ", " + many(Math.round(where.messages_per_second), "message", "messages") + "/s" : ""));
    say($("t-accounts"), group.format(where.accounts_ended));
    say($("t-accounts-of"), "of " + many(where.accounts, "account", "accounts") + " ended" + (ended ? "" : ", " + group.format(where.accounts_at_work) + " at work"));
    say($("t-dead"), group.format(where.standing));
    look($("t-dead").parentNode, "tile" + (where.standing ? " bad" : ""));
    say($("t-pending"), group.format(s[8]));
    look($("t-pending").parentNode, "tile" + (ended && s[8] ? " warn" : ""));
    say(document.querySelector("title"), (ended ? end.text : percent + " %") + " · " + run.pipeline + " · run " + run.number);
  }

  function parts() {
    const list = where.parts, text = JSON.stringify(list) + where.sum[0];
    if ($("parts").dataset.text === text) return;
    $("parts").dataset.text = text;
    $("parts").replaceChildren(...list.map((p) => {
      const r = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const set = {"class": "c-" + p.class, x: p.x, width: p.w, y: 0, height: 22};
      Object.keys(set).forEach((k) => r.setAttribute(k, set[k]));
      return r;
    }));
    const first = make("li");
    first.append(make("b", "", group.format(where.sum[0])), " listed" + (list.length ? " =" : ""));
    $("legend").replaceChildren(first, ...list.map((p) => {
      const li = make("li");
      li.append(make("i", "c-" + p.class), make("b", "", group.format(p.count)), " " + p.name);
      return li;
    }));
  }

  function failures(list) {
    $("failed").hidden = !list.length;
    $("failures").replaceChildren(...list.map((f) => {
      const d = make("div", "failure"), h = make("h3"), one = f.n === 1;
      const kind = !one ? f.k : f.k === "mailboxes" ? "mailbox" : f.k.replace(/s$/, "");
      h.append(make("span", "", group.format(f.n)), " " + kind + ": " + f.r + (f.w ? " in " + f.w : ""));
      d.append(h, make("p", "soft", f.t));
      if (f.h) d.append(make("p", "", f.h));
      const rest = f.n - f.x.length;
      if (f.n > 1 || f.k !== "accounts" || f.t.indexOf(f.x[0]) < 0) d.append(make("p", "names", f.x.join(", ") + (rest > 0 ? " and " + group.format(rest) + " more" : "")));
      return d;
    }));
  }
  function tell() {
    $("news").hidden = !news.length;
    $("no-news").hidden = !!news.length;
    $("news").replaceChildren(...news.slice().reverse().map((n) => {
      const li = make("li", n.bad ? "bad" : ""), t = make("time", "", clock(n.at));
      t.dateTime = new Date(n.at).toISOString();
      li.append(t, make("span", "", n.t));
      return li;
    }));
  }
  function chart(c) {
    $("chart").hidden = !c.shown;
    $("no-chart").hidden = c.shown;
    if (!c.shown) return;
    $("area").setAttribute("d", c.area);
    $("line").setAttribute("d", c.line);
    $("line-messages").setAttribute("d", c.messages);
    say($("top"), c.top);
    say($("top-messages"), c.top_messages);
    $("ticks").replaceChildren(...c.ticks.map((t) => {
      const s = make("span", "", t.text);
      s.style.left = t.x / 10 + "%";
      return s;
    }));
  }

  // The table. A row is made when it is shown, and changed where it stands.
  const table_ = $("table"), find = $("find"), choice = $("state");
  function choices() {
    const text = JSON.stringify(states), chosen = choice.value;
    if (choice.dataset.text === text || document.activeElement === choice) return;
    choice.dataset.text = text;
    const list = Object.keys(states).sort((a, b) => rank[a] - rank[b]);
    if (chosen && !states[chosen]) list.push(chosen);
    const all = make("option", "", "All states");
    all.value = "";
    choice.replaceChildren(all, ...list.map((s) => {
      const o = make("option", "", s + " (" + group.format(states[s] || 0) + ")");
      o.value = s;
      return o;
    }));
    choice.value = chosen;
  }
  function matches(r) {
    if (choice.value && r.t !== choice.value) return false;
    const w = find.value.trim().toLowerCase();
    return !w || r.s.toLowerCase().indexOf(w) >= 0 || (r.e || "").toLowerCase().indexOf(w) >= 0;
  }
  function columns() {
    const k = at.filter((k) => always.has(k) || where.sum[k]).join();
    if (k === used) return;
    used = k;
    nodes.forEach((n) => n.body.remove());
    nodes = new Map();
    $("head").replaceChildren(...["Account", "State"].concat(at.map((k, i) => always.has(k) || where.sum[k] ? names[i] : "").filter(Boolean)).map((name) => {
      const th = make("th", "", name);
      th.scope = "col";
      return th;
    }));
  }
  function table() {
    columns();
    if (stale) {
      order = rows.filter((r) => r && matches(r));
      order.sort((a, b) => rank[a.t] - rank[b.t] || a.i - b.i);
      order = order.map((r) => r.i);
      stale = false;
    }
    const focus = document.activeElement, shown = new Set();
    let here = table_.tHead.nextSibling;
    order.slice(0, limit).forEach((i) => {
      shown.add(i);
      let n = nodes.get(i);
      if (!n) nodes.set(i, n = row(i));
      fill(n, rows[i]);
      if (here === n.body) here = here.nextSibling;
      else table_.insertBefore(n.body, here);
    });
    nodes.forEach((n, i) => {
      if (shown.has(i)) return;
      n.body.remove();
      nodes.delete(i);
    });
    if (focus !== document.activeElement && focus.isConnected) focus.focus({preventScroll: true});
    const rest = order.length - Math.min(limit, order.length);
    say($("more"), rest > 0 ? group.format(limit) + " of " + group.format(order.length) + " accounts are shown; what failed comes first." :
      order.length || !rows.length ? "" : "No account matches.");
    $("show").hidden = rest <= 0;
    if (rest > 0) say($("show"), "Show " + Math.min(page, rest) + " more");
  }
  function row(i) {
    const body = document.createElement("tbody"), tr = make("tr", "account"), th = make("th"), b = make("button");
    th.scope = "row";
    b.type = "button";
    b.onclick = (e) => { e.stopPropagation(); toggle(i); };
    tr.onclick = () => { if (!String(getSelection())) toggle(i); };
    th.append(b);
    tr.append(th);
    body.append(tr);
    return {body: body, line: line(tr, b), why: null, boxes: []};
  }
  // A line of the table, with its cells.
  function line(tr, name) {
    const cells = [document.createElement("td")].concat(used.split(",").map(() => document.createElement("td")));
    tr.append(...cells);
    return {tr: tr, name: name, cells: cells};
  }
  function numbers(l, word, n, ended) {
    say(l.cells[0], word);
    look(l.cells[0], "s-" + word.split(" ")[0]);
    used.split(",").forEach((k, i) => {
      const c = l.cells[i + 1], v = n ? n[k = Number(k)] : "";
      if (!n) return say(c, "");
      if (k === 9) {
        say(c, v === null ? "unknown" : group.format(v));
        return look(c, v === null ? "zero" : ended && v !== n[0] ? "warn" : "");
      }
      say(c, k === 10 ? size(v) : group.format(v));
      look(c, v === 0 ? "zero" : k === 6 ? "bad" : k === 8 && ended ? "warn" : "");
    });
  }
  // Words below a line, as wide as the table; null when there are none.
  function why(old, after, kind, words) {
    words = words.filter((w) => w[0]);
    const text = JSON.stringify(words);
    after.classList.toggle("has", !!words.length);
    if (!words.length) {
      if (old) old.remove();
      return null;
    }
    if (!old) {
      old = make("tr", kind);
      old.append(document.createElement("td"));
      old.firstChild.colSpan = 2 + used.split(",").length;
    }
    if (old.previousSibling !== after) after.after(old);
    if (old.dataset.text !== text) {
      old.dataset.text = text;
      old.firstChild.replaceChildren(...words.map((w) => make("span", w[1] ? "note bad" : "note", w[0])));
    }
    return old;
  }
  function fill(n, r) {
    const isOpen = open.has(r.i), list = isOpen ? boxes.get(r.i) || [] : [];
    const sign = since + "/" + isOpen;
    if (n.row === r && n.list === list && n.open === isOpen && n.sign === (isOpen ? sign : "")) return;
    n.row = r;
    n.list = list;
    n.open = isOpen;
    n.sign = isOpen ? sign : "";
    say(n.line.name, r.s);
    n.line.name.setAttribute("aria-expanded", isOpen);
    numbers(n.line, r.t, r.n, r.t in {"complete": 1, "incomplete": 1, "failed": 1});
    const go = !r.u ? "" : r.t === "parked" ? "it may go on at " + clock(r.u) : "again at " + clock(r.u);
    n.why = why(n.why, n.line.tr, "why", [[r.e, r.t !== "trying again"], [go], [r.h], [isOpen && r.a], [isOpen && !list.length && "no mailbox is known yet"]]);
    list.forEach((b, i) => {
      let l = n.boxes[i];
      if (!l) {
        const tr = make("tr", "box"), th = make("th");
        th.scope = "row";
        tr.append(th);
        l = n.boxes[i] = line(tr, th);
      }
      if (!l.tr.isConnected) n.body.append(l.tr);
      if (typeof b === "number") { // how many more there are
        say(l.name, many(b, "more mailbox", "more mailboxes"));
        numbers(l, "", null);
        l.why = why(l.why, l.tr, "box why", []);
        return;
      }
      const under = r.t === "at work" && b[1] !== "complete" && b[1] !== "excluded" && !b[4];
      say(l.name, b[0] || "(the mailbox)");
      numbers(l, under ? (b[1] === "never listed" ? "waiting" : "at work") : b[1], b[1] === "excluded" ? null : b[2], !under);
      l.why = why(l.why, l.tr, "box why", [[b[4], true]].concat((b[3] || []).map((t) => [t]), [[b[5]]]));
    });
    n.boxes.splice(list.length).forEach((l) => {
      l.tr.remove();
      if (l.why) l.why.remove();
    });
  }
  function toggle(i) {
    if (!open.delete(i)) {
      open.add(i);
      if (open.size > 20) open.delete(open.values().next().value);
    }
    if (state !== "ended") connect(); // the stream brings the mailboxes of what is open
    plan();
  }
  function again() {
    limit = page;
    stale = true;
    plan();
  }
  find.addEventListener("input", again);
  choice.addEventListener("change", again);
  $("show").addEventListener("click", () => { limit += page; plan(); });

  // A page in the background is quiet, and catches up when it is seen again.
  document.addEventListener("visibilitychange", () => {
    clearTimeout(asleep);
    asleep = 0;
    if (document.hidden) {
      asleep = setTimeout(() => { asleep = -1; lost(); }, 30000);
    } else if (!source && state !== "ended") {
      tries = 0;
      connect();
    }
  });
  addEventListener("pageshow", (e) => { if (e.persisted && state !== "ended") connect(); });
  setInterval(watch, 1000);
  connect();
})();
