const LABELS = 10; // of an uploaded image
let labelled = null; // the uploaded image whose labels are shown: its labels by name, and the one whose map stays

/** Show the labels of an uploaded image and the maps of where they are, by the model of an index. */
async function labelUpload(upload, index, isCurrent) {
  const isWanted = () => isCurrent() && shown?.index === index;
  const get = (what, path, values) => once(upload.described, `${what} ${index}`, () => send(path, upload.file, { index, ...values }));
  try {
    const found = await get("labels", "api/label", { limit: LABELS });
    if (!isWanted()) return;
    if (labelled?.upload !== upload || labelled.index !== index) {
      labelled = { upload, index, labels: new Map(found.labels.map((each) => [each.label, each])), offset: 0, kept: null };
    }
    $("labels").hidden = $("label-scale").hidden = false;
    $("look").classList.add("labelled");
    listLabels();
    const maps = await get("maps", "api/localize", { labels: found.labels.map((each) => each.label) });
    if (isWanted()) addMaps(maps);
  } catch (error) {
    if (!isWanted()) return;
    $("labels").hidden = false;
    showProblem(error, () => {}, "label-problem", "label-suggestions");
  }
}

function clearLabels() {
  labelled = null;
  $("labels").hidden = $("label-scale").hidden = $("label-problem").hidden = $("label-suggestions").hidden = true;
  $("look").classList.remove("labelled");
  $("frame").classList.remove("mapped");
}

function addMaps(answer) {
  labelled.offset = answer.offset;
  for (const each of answer.labels) labelled.labels.set(each.label, each);
  listLabels();
}

function listLabels() {
  const focused = [...$("label-list").querySelectorAll("button")].find((each) => each === document.activeElement)?.dataset.label;
  $("label-list").replaceChildren(...[...labelled.labels.values()].map((each) => {
    const button = element("button", { type: "button", "aria-pressed": each.label === labelled.kept, "data-label": each.label });
    const share = element("i"), value = chance(each.score);
    share.style.setProperty("--share", each.score);
    button.append(element("span", {}, each.label), element("span", {}, value), share);
    button.setAttribute("aria-label", `${each.label}: ${value}${each.map ? `, most likely at the ${placeOf(each.map, labelled.offset)}` : ""}`);
    button.onpointerenter = button.onfocus = () => mapLabel(each.label);
    button.onpointerleave = button.onblur = () => mapLabel(labelled?.kept);
    button.onclick = () => keepLabel(each.label === labelled.kept ? null : each.label);
    const item = element("li");
    item.append(button);
    return item;
  }));
  [...$("label-list").querySelectorAll("button")].find((each) => each.dataset.label === focused)?.focus();
  mapLabel(focused ?? labelled.kept);
}

const chance = (score) => score < 0.01 ? "< 1 %" : `${Math.floor(100 * score)} %`;

/** Keep the map of a label over the image when the pointer leaves it; null for none. */
function keepLabel(label) {
  labelled.kept = label;
  for (const button of $("label-list").querySelectorAll("button")) button.setAttribute("aria-pressed", button.dataset.label === label);
  mapLabel(label);
}

/** Show the map of a label over the image, or the image alone. */
function mapLabel(label) {
  const map = labelled?.labels.get(label)?.map;
  $("frame").classList.toggle("mapped", Boolean(map));
  $("scale-of").textContent = map ? `probability of ${label}` : "Hover over a label, or click it, to see where it is";
  if (map) drawMap($("map"), $("preview"), map, 1, labelled.offset);
}

$("find").onsubmit = (event) => {
  event.preventDefault();
  findLabel($("label").value.trim());
};

/** Find a word in the image, and put it first among the labels. */
async function findLabel(label) {
  if (!label || !labelled) return;
  const { upload, index } = labelled;
  $("label-problem").hidden = $("label-suggestions").hidden = true;
  try {
    const answer = await once(upload.described, `map ${index} ${label}`, () => send("api/localize", upload.file, { index, labels: label }));
    if (labelled?.upload !== upload || labelled.index !== index) return;
    labelled.labels = new Map([[label, answer.labels[0]], ...labelled.labels]);
    addMaps(answer);
    keepLabel(label);
    $("label").value = "";
  } catch (error) {
    const replace = (word, other) => { $("label").focus(); findLabel(replaceWord(label, word, other)); };
    showProblem(error, replace, "label-problem", "label-suggestions");
  }
}
