// The page about all files: search for moments, and timelines that are read span by span.
(() => {
  const at = id => document.getElementById(id);
  const element = (tag, text = "", properties = {}) => Object.assign(document.createElement(tag), { textContent: text }, properties);
  const clock = seconds => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;
  const folded = text => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  const STEP = 100;
  let facts, moments, texts, hits = [], shown = 0;

  async function unpacked() {
    const bytes = Uint8Array.from(atob(JSON.parse(at("data").textContent)), letter => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  }

  // ---- search ----

  function options(select, pairs) { for (const [value, text] of pairs) select.append(element("option", text, { value })); }

  function fillChoices() {
    const numbered = names => names.map((name, place) => [place, name]), unique = names => [...new Set(names)].filter(Boolean);
    options(at("find-person"), unique(facts.people.map(person => person[0])).map(name => [name, name]));
    options(at("find-outcome"), numbered(facts.outcomes));
    options(at("find-said"), numbered(facts.labels)); options(at("find-shown"), numbered(facts.labels));
    const groups = unique(facts.people.flatMap(person => person[1]));
    options(at("find-group"), groups.map(name => [name, name]));
    at("find-group").parentElement.hidden = !groups.length;
  }

  // What a moment has to be: one test per field that is filled in.
  function wanted() {
    const value = name => at(`find-${name}`).value, tests = [];
    const words = folded(value("words")).split(/\s+/).filter(Boolean);
    if (words.length) tests.push(one => words.every(word => texts[one].includes(word)));
    if (value("person")) tests.push(one => facts.people[moments.who[one]][0] === value("person"));
    if (value("group")) tests.push(one => facts.people[moments.who[one]][1].includes(value("group")));
    if (value("outcome")) tests.push(one => moments.outcome[one] === Number(value("outcome")));
    if (value("least")) tests.push(one => moments.confidence[one] >= Number(value("least")));
    if (value("most")) tests.push(one => moments.confidence[one] >= 0 && moments.confidence[one] <= Number(value("most")));
    if (value("said")) tests.push(one => moments.words[one] === Number(value("said")));
    if (value("shown")) tests.push(one => moments.shown[one] === Number(value("shown")));
    if (at("find-differ").checked) tests.push(one => moments.words[one] !== moments.shown[one] && moments.words[one] >= 0);
    return tests;
  }

  function search() {
    const tests = wanted(), order = at("find-order").value;
    hits = [];
    for (let one = 0; one < moments.start.length; one++) if (tests.every(test => test(one))) hits.push(one);
    const by = { difference: one => -moments.distance[one], least: one => (moments.confidence[one] < 0 ? 101 : moments.confidence[one]), most: one => -moments.confidence[one] }[order];
    hits.sort((a, b) => (by ? by(a) - by(b) : 0) || moments.file[a] - moments.file[b] || moments.start[a] - moments.start[b]);
    at("hits").replaceChildren();
    shown = 0;
    more();
    at("find-status").textContent = `${hits.length} of ${moments.start.length} moments`;
  }

  function more() {
    at("hits").append(...hits.slice(shown, shown + STEP).map(hit));
    shown = Math.min(shown + STEP, hits.length);
    at("find-more").hidden = shown >= hits.length;
    at("find-save").disabled = !hits.length;
  }

  function hit(one) {
    const [file, page] = facts.files[moments.file[one]], item = element("li"), place = element("div"), answer = element("div");
    place.append(element("a", `${file} ${clock(moments.start[one])}`, { href: `${page}#t=${moments.start[one]}` }));
    const name = facts.people[moments.who[one]][0];
    if (name && name !== file) place.append(element("small", name.startsWith(`${file} / `) ? name.slice(file.length + 3) : name));
    const outcome = facts.outcomes[moments.outcome[one]], guess = facts.labels[moments.label[one]];
    const dot = element("span", "", { className: `dot ${at("find-outcome").dataset.styles.split(" ")[moments.outcome[one]]}` });
    answer.append(dot, moments.value[one] === null ? outcome : moments.value[one].toFixed(2));
    if (guess) answer.append(` ${guess === outcome ? "" : `(perhaps ${guess}) `}${moments.confidence[one]} %`);
    if (moments.words[one] >= 0 && moments.words[one] !== moments.shown[one])
      answer.append(element("small", `words: ${facts.labels[moments.words[one]]}, shown: ${facts.labels[moments.shown[one]]}, difference ${(moments.distance[one] / 100).toFixed(2)}`));
    item.append(place, element("div", moments.text[one] || "no words", { className: moments.text[one] ? "" : "none" }), answer);
    return item;
  }

  // ---- the hits as a table ----

  // What a spreadsheet would take for a formula begins with an apostrophe.
  const cell = value => `"${String(value ?? "").replace(/^[=+\-@\t\r\n]/, "'$&").replaceAll('"', '""')}"`;

  function save() {
    const label = (place, names) => names[place] ?? "";
    const rows = hits.map(one => [
      facts.files[moments.file[one]][0], moments.start[one], moments.end[one], facts.people[moments.who[one]][0], facts.outcomes[moments.outcome[one]],
      label(moments.label[one], facts.labels), moments.confidence[one] < 0 ? "" : moments.confidence[one] / 100, moments.value[one],
      label(moments.words[one], facts.labels), label(moments.shown[one], facts.labels), moments.distance[one] < 0 ? "" : moments.distance[one] / 100, moments.text[one],
    ]);
    const head = ["file", "start", "end", "person", "outcome", "label", "confidence", "value", "words_say", "face_and_voice_show", "difference", "text"];
    const text = [head, ...rows].map(row => row.map(cell).join(",")).join("\r\n") + "\r\n";
    const link = element("a", "", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: "moments.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  async function begin() {
    try { facts = await unpacked(); } catch { at("find-status").textContent = "This browser cannot unpack the moments; a newer one can."; return; }
    moments = facts.moments;
    texts = moments.text.map(folded);
    fillChoices();
    let waiting;
    at("find").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(search, 120); });
    at("find").addEventListener("submit", event => event.preventDefault());
    at("find").addEventListener("reset", () => setTimeout(search));
    at("find-more").addEventListener("click", more);
    at("find-save").addEventListener("click", save);
    at("find").hidden = at("find-results").hidden = false;
    search();
  }

  // ---- timelines: with the arrow keys, by pointing, or by touch ----

  function show(line, span) {
    const told = line.closest(".file").querySelector(".told");
    for (const old of line.querySelectorAll(".at")) old.classList.remove("at");
    span.classList.add("at");
    told.textContent = span.title;
    line.setAttribute("aria-valuetext", span.title);
    line.setAttribute("aria-valuenow", [...line.children].indexOf(span));
  }

  function pointed(event) {
    const span = event.target.closest(".line i");
    if (span) show(span.parentElement, span);
  }

  function pressed(event) {
    const line = event.target.closest(".line"), spans = line ? [...line.children] : [];
    const now = spans.findIndex(span => span.classList.contains("at"));
    const to = { ArrowRight: now + 1, ArrowLeft: Math.max(now, 1) - 1, Home: 0, End: spans.length - 1 }[event.key];
    if (to === undefined || !spans.length) return;
    event.preventDefault();
    show(line, spans[Math.min(to, spans.length - 1)]);
  }

  for (const line of document.querySelectorAll(".line")) {
    line.setAttribute("role", "slider");
    line.setAttribute("aria-valuemin", 0);
    line.setAttribute("aria-valuemax", line.children.length - 1);
    line.setAttribute("aria-valuenow", 0);
    line.setAttribute("aria-valuetext", line.children[0].title);
  }
  addEventListener("mouseover", pointed);
  addEventListener("click", pointed);
  addEventListener("keydown", pressed);
  if (at("find")) begin();
})();
