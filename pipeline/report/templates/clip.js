// The page of a clip: the recording, its utterances, and their corrections.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = id => document.getElementById(id);
  const media = at("media"), list = at("rows"), items = [...list.children];
  const FORMAT = "emopipe-corrections", VERSION = 1, STORED = `emopipe-corrections:${data.probe || data.name}`;
  const corrections = new Map();
  let selected = -1, playable = true, position = 0, stopAt = null, current = -1;

  // What is kept in the browser; a page opened from a folder may have nothing to keep it in. Where a server saves, each
  // tab keeps what it has not yet sent.
  const kept = {
    get(name) { try { return (data.server ? sessionStorage : localStorage).getItem(name); } catch { return null; } },
    set(name, text) { try { (data.server ? sessionStorage : localStorage).setItem(name, text); return true; } catch { return false; } },
  };
  // What the server has saved of whom, as this page last saw it; whether there is something that it has not.
  let server = { by: "", etag: "" }, unsent = false, conflict = null;

  const element = (tag, text = "", properties = {}) => Object.assign(document.createElement(tag), { textContent: text }, properties);
  const percent = share => `${Math.round(100 * share)} %`;
  const best = shares => shares.indexOf(Math.max(...shares));
  const say = text => { at("status").textContent = text; };

  // An utterance as corrected, which is how the timeline and the filters see it.
  function rowAt(index) {
    const row = data.rows[index], fix = corrections.get(index) || {};
    const [start, end] = fix.bounds || [row.start, row.end];
    return { ...row, start, end, label: fix.label ?? row.label, value: fix.value ?? row.value, speaker: fix.person ?? row.speaker, text: fix.text ?? row.text, hidden: items[index].hidden };
  }

  // ---- moving in the recording ----

  function seek(seconds) {
    position = Math.max(0, Math.min(seconds, data.duration));
    stopAt = null;
    if (playable) media.currentTime = position;
    showPosition();
  }

  function showPosition() {
    timeline.moveTo(position);
    const text = `${clock(position)} of ${clock(data.duration)}`;
    if (at("clock").textContent !== text) at("clock").textContent = text;
    const index = timeline.visible(position, position).at(-1) ?? -1;
    if (index === current) return;
    if (current >= 0) items[current].classList.remove("now");
    if (index >= 0) items[index].classList.add("now");
    current = index;
    if (index >= 0 && playable && !media.paused && at("follow").checked) reveal(items[index]);
  }

  function reveal(item) {
    const scroller = at("scroller"), top = item.offsetTop, room = scroller.clientHeight;
    if (top < scroller.scrollTop || top + item.offsetHeight > scroller.scrollTop + room) scroller.scrollTop = top - room / 3;
  }

  function tick() {
    position = media.currentTime;
    if (stopAt !== null && position >= stopAt) { media.pause(); stopAt = null; }
    showPosition();
    if (!media.paused) requestAnimationFrame(tick);
  }

  function play() { if (playable) media.play().catch(() => {}); }

  function playOne() {
    if (selected < 0) return;
    const row = rowAt(selected);
    seek(row.start);
    stopAt = row.end;
    play();
  }

  // ---- the selected utterance ----

  function select(index, move = true) {
    if (index < 0 || index >= items.length) return;
    if (selected >= 0) { items[selected].classList.remove("selected"); items[selected].querySelector(".time").removeAttribute("aria-current"); }
    selected = timeline.selected = index;
    items[index].classList.add("selected");
    items[index].querySelector(".time").setAttribute("aria-current", "true");
    reveal(items[index]);
    if (move) seek(data.rows[index].start);
    timeline.redraw();
    showSelected();
  }

  function showSelected() {
    const row = rowAt(selected);
    at("selected-title").textContent = `${selected + 1} of ${items.length}: ${clock(row.start)} - ${clock(row.end)} ${row.speaker || ""}`;
    at("reasons").replaceChildren(...explanation(data.rows[selected]));
    fillEditor();
  }

  function explanation(row) {
    const parts = [element("p", row.text || "No words.", { className: "words" })];
    if (row.probabilities.length) parts.push(...bars(row.probabilities));
    const modalities = [...new Set([...Object.keys(row.weights), ...Object.keys(row.unimodal), ...Object.keys(row.absent)])];
    if (!modalities.length) return parts;
    const table = element("table", "", { className: "opinions" }), head = element("tr");
    table.append(element("caption", "Why: what each modality says"));
    for (const name of ["Modality", "Weight", "Says alone", "Answer without it", "Quality"]) head.append(element("th", name, { scope: "col" }));
    table.append(head, ...modalities.map(name => opinion(row, name)));
    const scroll = element("div", "", { className: "scroll", tabIndex: 0 });
    scroll.setAttribute("role", "region"); scroll.setAttribute("aria-label", "Why this answer");
    scroll.append(table);
    return [...parts, scroll];
  }

  function bars(shares) {
    const order = shares.map((_, index) => index).sort((a, b) => shares[b] - shares[a]);
    return order.map(index => {
      const bar = element("div", "", { className: "bar" }), length = element("i");
      length.style.width = `${100 * shares[index]}%`; length.style.background = data.colours[data.labels[index]];
      const box = element("span"); box.append(length);
      bar.append(element("span", data.labels[index]), box, element("span", percent(shares[index])));
      return bar;
    });
  }

  function opinion(row, name) {
    const line = element("tr"), number = share => (share === undefined ? "" : share.toFixed(2));
    line.append(element("th", name, { scope: "row" }));
    if (row.absent[name]) {
      line.append(element("td", `absent: ${row.absent[name]}`, { colSpan: 4, className: "none" }));
      return line;
    }
    for (const text of [number(row.weights[name]), verdict(row.unimodal[name]), verdict(row.without[name]), number(row.quality[name])])
      line.append(element("td", text));
    return line;
  }

  function verdict(shares) {
    if (!shares || !shares.length) return "";
    return data.labels.length ? `${data.labels[best(shares)]} ${percent(Math.max(...shares))}` : shares[0].toFixed(2);
  }

  // ---- corrections ----

  function fillEditor() {
    const row = rowAt(selected), fix = corrections.get(selected) || {};
    at("editor").hidden = false;
    at("edit-label").value = row.label || ""; at("edit-value").value = row.value ?? "";
    at("edit-person").value = row.speaker || ""; at("edit-text").value = row.text;
    at("edit-start").value = row.start; at("edit-end").value = row.end;
    at("edit-note").value = fix.note || ""; at("edit-confirmed").checked = Boolean(fix.confirmed);
  }

  // What the fields say that the record does not.
  function readEditor() {
    const row = data.rows[selected], fix = {}, person = at("edit-person").value.trim(), note = at("edit-note").value.trim();
    if (at("edit-label").value && at("edit-label").value !== row.label) fix.label = at("edit-label").value;
    const value = at("edit-value").valueAsNumber;
    if (Number.isFinite(value) && value !== row.value) fix.value = value;
    if (person && person !== row.speaker) fix.person = person;
    if (at("edit-text").value !== row.text) fix.text = at("edit-text").value;
    const bounds = [at("edit-start").valueAsNumber, at("edit-end").valueAsNumber];
    if (bounds[0] !== row.start || bounds[1] !== row.end) fix.bounds = bounds;
    if (note) fix.note = note;
    if (at("edit-confirmed").checked) fix.confirmed = true;
    return fix;
  }

  const isPlace = bounds => Array.isArray(bounds) && bounds.length === 2 && bounds.every(Number.isFinite) && bounds[0] >= 0 && bounds[0] < bounds[1] && bounds[1] <= data.duration + 0.01;

  function edited() {
    const fix = readEditor(), wrong = fix.bounds && !isPlace(fix.bounds);
    for (const id of ["edit-start", "edit-end"]) {
      at(id).setCustomValidity(wrong ? "The end lies after the start, both within the recording" : "");
      at(id).setAttribute("aria-invalid", String(Boolean(wrong)));
    }
    if (wrong) { delete fix.bounds; say("These bounds are not kept: the end lies after the start, both within the recording."); }
    keep(selected, fix);
  }

  function keep(index, fix) {
    if (Object.keys(fix).length) corrections.set(index, { ...fix, when: now() }); else corrections.delete(index);
    showRow(index);
    remember();
    timeline.redraw();
  }

  const now = () => new Date().toISOString().replace(/\.\d+Z$/, "Z");

  function showRow(index) {
    const item = items[index], row = rowAt(index), fix = corrections.get(index);
    item.querySelectorAll(".mark").forEach(mark => mark.remove());
    item.querySelector(".time").textContent = `${clock(row.start)} - ${clock(row.end)}`;
    if (fix?.text !== undefined || item.dataset.changed) item.querySelector(".words").textContent = row.text || "no words";
    if (fix) item.dataset.changed = "1";
    if (!fix) return;
    const changes = [fix.label, fix.value, fix.person].filter(one => one !== undefined).join(", ");
    const whole = Object.keys(fix).some(key => key !== "confirmed" && key !== "when" && key !== "note");
    item.querySelector(".answer").append(element("span", (whole ? "corrected" : fix.confirmed ? "confirmed" : "note") + (changes ? `: ${changes}` : ""), { className: "mark" }));
  }

  // What is confirmed is told with it: a file may be applied to the answers of another model.
  const answerOf = row => (row.label ? { label: row.label } : Number.isFinite(row.value) ? { value: row.value } : {});

  function asDocument() {
    const utterances = [...corrections].sort(([a], [b]) => a - b).map(([index, fix]) => {
      const row = data.rows[index], { start, end, speaker } = row;
      return { start, end, speaker, ...(fix.confirmed ? answerOf(row) : {}), ...fix };
    });
    return { format: FORMAT, version: VERSION, by: at("by").value.trim(), saved: now(), recordings: [{ name: data.name, media: data.media, probe: data.probe, utterances }] };
  }

  const keepUnsent = () => kept.set(STORED, JSON.stringify({ ...asDocument(), unsent, server }));

  const keepName = () => kept.set(STORED, JSON.stringify({ by: at("by").value.trim(), unsent }));

  function remember() {
    unsent = true;
    const held = keepUnsent();
    at("kept").textContent = data.server ? "Not yet saved." : held ? "Kept in this browser until you save them as a file." : "This browser keeps nothing for pages of this kind: save before you leave.";
    showProgress();
  }

  function showProgress() { at("progress").textContent = `${corrections.size} of ${items.length} corrected or confirmed`; }

  const CHECKS = {
    label: one => data.labels.includes(one), value: Number.isFinite, person: one => typeof one === "string" && one !== "", text: one => typeof one === "string",
    bounds: isPlace, note: one => typeof one === "string", confirmed: one => one === true, when: one => typeof one === "string",
  };

  // Takes over the corrections of a document that are of this recording; returns how many, and how many fit nowhere.
  function take(saved) {
    if (saved?.format !== FORMAT || saved.version !== VERSION) throw new Error("this is not a file of corrections, or one of another version");
    const own = saved.recordings.find(one => (data.probe ? one.probe === data.probe : one.name === data.name));
    if (!own) throw new Error("none of its corrections are of this recording");
    const places = new Map(data.rows.map((row, index) => [`${row.start} ${row.end} ${row.speaker}`, index]));
    let taken = 0, lost = 0;
    for (const one of own.utterances) {
      const index = places.get(`${one.start} ${one.end} ${one.speaker}`);
      const fix = Object.fromEntries(Object.entries(CHECKS).filter(([key, check]) => one[key] !== undefined && check(one[key])).map(([key]) => [key, one[key]]));
      for (const [key, answer] of index === undefined ? [] : Object.entries(answerOf(data.rows[index]))) if (fix[key] === answer) delete fix[key];
      if (index === undefined || !Object.keys(fix).some(key => key !== "when")) { lost += 1; continue; }
      corrections.set(index, fix);
      showRow(index);
      taken += 1;
    }
    if (typeof saved.by === "string" && saved.by) at("by").value = saved.by;
    timeline.redraw();
    return [taken, lost];
  }

  async function load(file) {
    try {
      const [taken, lost] = take(JSON.parse(await file.text()));
      remember();
      if (selected >= 0) showSelected();
      filter();
      say(`${taken} corrections are loaded` + (lost ? `; ${lost} fit no utterance of this page.` : "."));
    } catch (error) { say(`The file cannot be used: ${error.message}.`); }
  }

  function save() {
    if (!at("by").value.trim()) { at("by").focus(); return say("Who corrects? Fill in the field, then save."); }
    const link = element("a", "", { download: "corrections.json" });
    link.href = URL.createObjectURL(new Blob([JSON.stringify(asDocument(), null, 1) + "\n"], { type: "application/json" }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    say(`corrections.json with ${corrections.size} utterances is saved; apply it with: emopipe correct RESULTS corrections.json`);
  }

  // ---- corrections that a server saves ----

  async function asked(options = {}) {
    const answer = await fetch(data.server, options);
    let facts = {};
    try { facts = await answer.json(); } catch { /* an error in words of the server's own */ }
    return [answer, facts];
  }

  async function send(seen) {
    const by = at("by").value.trim();
    if (!by) { at("by").focus(); return say("Who corrects? Fill in the field, then save."); }
    const content = JSON.stringify(asDocument()), count = corrections.size, sent = JSON.stringify([...corrections]);
    const etag = seen ?? (server.by === by ? server.etag : "");
    let answer, facts;
    try {
      [answer, facts] = await asked({ method: "PUT", body: content, headers: { "Content-Type": "application/json", "If-Match": `"${etag}"` } });
    } catch { return say("Not saved: emopipe view does not answer. Start it again, or download corrections.json."); }
    if (answer.status === 412) return showConflict(facts);
    if (!answer.ok) return say(`Not saved: ${facts.what || answer.statusText}. ${facts.hint || ""}`);
    server = { by, etag: facts.etag };
    at("conflict").hidden = true;
    if (sent === JSON.stringify([...corrections])) settled();
    say(`The corrections of ${count} utterances are saved in the results; apply them with: emopipe correct RESULTS RESULTS/corrections.json`);
  }

  function settled() {
    unsent = false;
    keepName();
    at("kept").textContent = corrections.size ? "Saved in the results." : "";
    showProgress();
  }

  function showConflict(theirs) {
    conflict = theirs;
    at("conflict-text").textContent = `Not saved: since this page was loaded, ${theirs.by} has saved other corrections of this recording, of ${theirs.recordings[0].utterances.length} utterances (${theirs.saved}), in another tab or program.`;
    at("conflict").hidden = false;
    at("combine").focus();
    say("Not saved: there are other corrections.");
  }

  function replaceBy(document) {
    const touched = [...corrections.keys()];
    corrections.clear();
    touched.forEach(showRow);
    return document.recordings[0].utterances.length ? take(document) : [0, 0];
  }

  function combine() {
    const own = [...corrections];
    replaceBy(conflict);
    for (const [index, fix] of own) { corrections.set(index, fix); showRow(index); }
    remember();
    send(conflict.etag);
  }

  function takeTheirs() {
    replaceBy(conflict);
    server = { by: conflict.by, etag: conflict.etag };
    at("conflict").hidden = true;
    settled();
    if (selected >= 0) showSelected();
    filter();
  }

  // Shows what a person has saved; what was corrected here and not yet sent goes before it.
  async function showSaved(by) {
    const [answer, saved] = await asked();
    if (by !== undefined && by !== at("by").value.trim()) return;
    if (!answer.ok) return say(`Saved corrections cannot be read: ${saved.what || answer.statusText}. ${saved.hint || ""}`);
    at("correctors").replaceChildren();
    options(at("correctors"), saved.map(one => one.by));
    if (!by) return saved.length ? say(`${saved.map(one => one.by).join(", ")} saved corrections. Who corrects? Fill in the field to go on with yours.`) : undefined;
    const theirs = saved.find(one => one.by === by), own = unsent ? [...corrections] : [];
    const [, lost] = replaceBy(theirs || { recordings: [{ utterances: [] }] });
    server = { by, etag: theirs ? theirs.etag : "" };
    for (const [index, fix] of own) { corrections.set(index, fix); showRow(index); }
    if (own.length) remember(); else settled();
    if (selected >= 0) showSelected();
    filter();
    if (lost) say(`${lost} saved corrections fit no utterance of this page.`);
  }

  // The name is kept before the server answers: the page may be left until then.
  function correctorChanged() {
    if (!data.server) return remember();
    if (unsent) keepUnsent(); else keepName();
    showSaved(at("by").value.trim()).catch(failed);
  }

  async function begin() {
    const draft = JSON.parse(kept.get(STORED) || "{}");
    if (!draft.unsent) { at("by").value = draft.by || ""; return showSaved(draft.by); }
    server = draft.server;
    take(draft);
    remember();
  }

  const failed = error => say(`Saved corrections cannot be used: ${error.message}.`);

  // ---- the list ----

  const doubt = row => (row.abstained ? -1 : 0) + (row.confidence ?? 2);

  function fits(index, wanted) {
    const row = rowAt(index), plain = data.rows[index];
    return (!wanted.words || row.text.toLowerCase().includes(wanted.words))
      && (!wanted.person || row.speaker === wanted.person)
      && (!wanted.label || row.label === wanted.label)
      && (!wanted.confidence || (plain.confidence !== null && plain.confidence <= Number(wanted.confidence)))
      && (!wanted.absent || plain.absent[wanted.absent] !== undefined)
      && (!wanted.state || (wanted.state === "done") === corrections.has(index));
  }

  function filter() {
    const wanted = { words: at("filter-words").value.trim().toLowerCase() };
    for (const name of ["person", "label", "confidence", "absent", "state"]) wanted[name] = at(`filter-${name}`).value;
    let left = 0;
    items.forEach((item, index) => { item.hidden = !fits(index, wanted); left += !item.hidden; });
    say(`${left} of ${items.length} utterances`);
    timeline.redraw();
  }

  function order() {
    const ordered = items.map((_, index) => index);
    if (at("order").value === "doubt") ordered.sort((a, b) => doubt(data.rows[a]) - doubt(data.rows[b]) || a - b);
    list.append(...ordered.map(index => items[index]));
    at("scroller").scrollTop = 0;
  }

  function step(direction) {
    const shown = [...list.children].filter(item => !item.hidden);
    const place = shown.indexOf(items[selected]);
    const next = place < 0 ? (direction > 0 ? 0 : shown.length - 1) : place + direction;
    if (shown[next]) select(items.indexOf(shown[next]));
  }

  function nextUncertain() {
    const open = items.map((_, index) => index).filter(index => !corrections.has(index) && index !== selected);
    if (!open.length) return say("Every other utterance has been looked at.");
    select(open.reduce((least, index) => (doubt(data.rows[index]) < doubt(data.rows[least]) ? index : least)));
  }

  // ---- keys and clicks ----

  function confirm() {
    if (selected < 0) return;
    at("edit-confirmed").checked = !at("edit-confirmed").checked;
    edited();
    say(at("edit-confirmed").checked ? "Confirmed." : "No longer confirmed.");
  }

  function edit() { if (selected >= 0) (data.labels.length ? at("edit-label") : at("edit-value")).focus(); }

  const KEYS = {
    " ": () => (media.paused ? play() : media.pause()), ArrowDown: () => step(1), j: () => step(1), ArrowUp: () => step(-1), k: () => step(-1),
    ArrowRight: () => seek(position + 2), ArrowLeft: () => seek(position - 2), u: nextUncertain, c: confirm, e: edit, s: data.server ? () => send() : save,
    "/": () => at("filter-words").focus(), "+": () => timeline.zoom(1 / 1.5), "-": () => timeline.zoom(1.5), 0: () => timeline.whole(), "?": () => at("help").showModal(),
  };

  function pressed(event) {
    const field = event.target.closest("input:not([type=checkbox]), select, textarea, video, audio");
    if (event.key === "Escape" && field) return field.blur();
    if (field || event.ctrlKey || event.metaKey || event.altKey || at("help").open || !(at("keys-on").checked || event.key === "?")) return;
    if (event.key === " " && event.target.closest("button, input, summary, a")) return;
    const action = KEYS[event.key];
    if (action) { event.preventDefault(); action(); }
  }

  function options(select, names) { for (const name of names) select.append(element("option", name, { value: name })); }

  function fillChoices() {
    options(at("filter-person"), data.people); options(at("filter-label"), data.labels);
    options(at("filter-absent"), [...new Set(data.rows.flatMap(row => Object.keys(row.absent)))]);
    options(at("edit-label"), data.labels); options(at("people"), data.people);
    at("edit-value-field").hidden = Boolean(data.labels.length);
    for (const track of timeline.tracks) {
      const box = element("input", "", { type: "checkbox", checked: track.shown }), label = element("label");
      box.addEventListener("change", () => { track.shown = box.checked; timeline.redraw(); });
      label.append(box, ` ${track.title}`);
      at("curves").append(label);
    }
  }

  function listen() {
    list.addEventListener("click", event => {
      const item = event.target.closest(".row");
      if (item && !event.target.closest("a")) select(items.indexOf(item));
    });
    for (const button of document.querySelectorAll(".ranking button"))
      button.addEventListener("click", () => select(data.rows.findIndex(row => row.start === Number(button.dataset.start))));
    for (const [id, action] of Object.entries({
      "zoom-in": KEYS["+"], "zoom-out": KEYS["-"], "zoom-all": KEYS[0], "help-open": KEYS["?"], previous: KEYS.k, next: KEYS.j, "next-uncertain": nextUncertain, "play-one": playOne, save,
      revert: () => { keep(selected, {}); showSelected(); },
    })) at(id).addEventListener("click", () => action());
    at("editor").addEventListener("input", edited);
    at("editor").addEventListener("submit", event => event.preventDefault());
    at("by").addEventListener("change", correctorChanged);
    if (data.server) {
      for (const [id, action] of Object.entries({ send: () => send(), combine, "take-theirs": takeTheirs, replace: () => send(conflict.etag) })) at(id).addEventListener("click", action);
      addEventListener("beforeunload", event => { if (unsent && corrections.size) event.preventDefault(); });
    }
    at("load").addEventListener("change", () => { if (at("load").files[0]) load(at("load").files[0]); at("load").value = ""; });
    document.querySelectorAll("[id^=filter-]").forEach(field => field.addEventListener("input", filter));
    at("order").addEventListener("change", order);
    document.addEventListener("keydown", pressed);
    media.addEventListener("play", () => requestAnimationFrame(tick));
    media.addEventListener("seeked", () => { position = media.currentTime; showPosition(); });
    media.addEventListener("error", () => { playable = false; media.hidden = true; at("unplayable").hidden = false; });
  }

  // An address that ends in #t=SECONDS leads to the utterance at that time.
  function followAddress() {
    const seconds = Number.parseFloat(new URLSearchParams(location.hash.slice(1)).get("t"));
    if (Number.isFinite(seconds)) select(data.rows.findLastIndex(row => row.start <= seconds + 0.01));
  }

  document.querySelectorAll(".with-script").forEach(part => { part.hidden = false; });
  const timeline = new Timeline(data, seek, rowAt);
  fillChoices();
  listen();
  if (data.server) begin().catch(failed);
  else try { const text = kept.get(STORED); if (text) take(JSON.parse(text)); } catch { say("What this browser kept of earlier corrections cannot be used."); }
  showProgress();
  showPosition();
  if (media.error || !media.hasAttribute("src")) media.dispatchEvent(new Event("error"));
  addEventListener("hashchange", followAddress);
  followAddress();
})();
