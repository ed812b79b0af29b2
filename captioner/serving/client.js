let limits = { max_bytes: Infinity };
let indexes = [];
let hasCaptions = false;

/** Return the parameters of a request whose values are not empty; an array has one for each value. */
function parameters(values) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    for (const each of [value].flat()) if (each !== "") found.append(name, each);
  }
  return found;
}

/** Return the JSON of an answer; throw an Error with the service's message. */
async function call(path, options = {}) {
  const reply = await fetch(path, { ...options, headers: { ...options.headers, ...access() } });
  const answer = await reply.json();
  if (reply.status === 401 && !$("access").open) $("access").showModal();
  if (!reply.ok) throw new Error(answer.detail);
  return answer;
}

/** Send an image; return the JSON of the answer. */
function send(path, image, values, signal) {
  const headers = { "content-type": image.type || "application/octet-stream" };
  return call(`${path}?${parameters(values)}`, { method: "POST", body: image, headers, signal });
}

/** Return the promise of a key, which `make` makes unless there is one that was not rejected. */
function once(promises, key, make) {
  if (!promises.has(key)) {
    promises.set(key, make());
    promises.get(key).catch(() => promises.delete(key));
  }
  return promises.get(key);
}

/** Ask the service what it serves, and list its indexes in the page. */
async function connect() {
  const health = await call("health");
  limits = health.limits;
  hasCaptions = health.has_captions;
  $("captions-page").hidden = !hasCaptions;
  $("relation-page").hidden = !health.has_relations;
  indexes = (await call("api/indexes")).indexes;
  $("index").replaceChildren(...indexes.map((each) => element("option", { value: each.name }, each.name)));
  $("indexes").hidden = indexes.length < 2;
}

$("access").onclose = () => {
  if ($("access").returnValue === "ok") {
    sessionStorage.setItem("token", $("token").value.trim());
    start();
  }
  $("access").returnValue = $("token").value = "";
};

/** Return the similar words that an error of the service names, as pairs of a word and a similar one. */
function suggestions(message) {
  const found = [];
  for (const [, word, similar] of message.matchAll(/'([^']+)' \(similar: ([^)]+)\)/g)) {
    for (const other of similar.split(", ").filter((each) => !each.includes(" "))) found.push([word, other]);
  }
  return found;
}

/** Replace a word of a query in any case, but not within longer words or in names of images. */
function replaceWord(query, word, other) {
  const escaped = word.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"), letter = "[\\p{L}\\p{M}\\p{N}_]";
  const image = 'image:(?:"(?:[^"\\\\]|\\\\.)*"|\\S+)';
  const pattern = new RegExp(`(${image})|(?<!${letter})${escaped}(?!${letter})`, "giu");
  return query.replace(pattern, (_, name) => name ?? other);
}

/** Show an error as a sentence, and buttons that replace its unknown words with similar ones by `replace(word, other)`; `place` and `buttons` are ids. */
function showProblem(error, replace, place = "problem", buttons = "suggestions") {
  $(place).textContent = sentence(error);
  $(place).hidden = false;
  $(buttons).replaceChildren(...suggestions(error.message).map(([word, other]) => {
    const button = element("button", { type: "button", "aria-label": `Replace ${word} with ${other}` }, `${word} → ${other}`);
    button.onclick = () => replace(word, other);
    return button;
  }));
  $(buttons).hidden = !$(buttons).children.length;
}
