"use strict";
// Shows what /openapi.json says, and sends requests. Text from the server is only ever put in as text.

const make = (tag, attributes, ...inside) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {}))
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false) element.setAttribute(name, value === true ? "" : value);
  element.append(...inside);
  return element;
};
const base = new URL("openapi.json", location.href);
const address = (path) => new URL(path.replace(/^\//, ""), base).href;

// ---- arrays: {dtype, shape, values} with values a typed array in C order --------------------------------------------

const KINDS = { u1: ["uint8", Uint8Array], i1: ["int8", Int8Array], u2: ["uint16", Uint16Array], i2: ["int16", Int16Array],
  f4: ["float32", Float32Array], f8: ["float64", Float64Array] };
const CODES = { uint8: "|u1", int8: "|i1", uint16: "<u2", int16: "<i2", float32: "<f4", float64: "<f8" };

const swapped = (bytes, size) => {
  const copy = bytes.slice();
  for (let at = 0; size > 1 && at + size <= copy.length; at += size) copy.subarray(at, at + size).reverse();
  return copy;
};
const typed = (bytes, Kind, big) => {
  const size = Kind.BYTES_PER_ELEMENT;
  const own = big ? swapped(bytes, size) : bytes.slice();
  return new Kind(own.buffer, 0, Math.floor(own.length / size));
};
const product = (shape) => shape.reduce((a, b) => a * b, 1);

const readNpy = (buffer) => {
  const bytes = new Uint8Array(buffer), view = new DataView(buffer);
  if (bytes.length < 12 || String.fromCharCode(...bytes.subarray(1, 6)) !== "NUMPY") throw new Error("This is no npy file.");
  const wide = bytes[6] >= 2, begin = wide ? 12 : 10;
  const end = begin + (wide ? view.getUint32(8, true) : view.getUint16(8, true));
  const head = new TextDecoder().decode(bytes.subarray(begin, end));
  const code = /'descr':\s*'([<>|=]?)([a-z]\d)'/.exec(head), dims = /'shape':\s*\(([^)]*)\)/.exec(head);
  if (!code || !dims || !KINDS[code[2]]) throw new Error("The page reads npy of (u)int8, (u)int16, float32 and float64.");
  if (/'fortran_order':\s*True/.test(head)) throw new Error("The array is in Fortran order; numpy.ascontiguousarray makes it C order.");
  const shape = dims[1].split(",").map((one) => one.trim()).filter(Boolean).map(Number);
  const [dtype, Kind] = KINDS[code[2]];
  const need = product(shape) * Kind.BYTES_PER_ELEMENT;
  if (bytes.length - end < need) throw new Error("The npy file is shorter than its shape says.");
  return { dtype, shape, values: typed(bytes.subarray(end, end + need), Kind, code[1] === ">") };
};

const writeNpy = (array) => {
  const shape = array.shape.join(", ") + (array.shape.length === 1 ? "," : "");
  let head = `{'descr': '${CODES[array.dtype]}', 'fortran_order': False, 'shape': (${shape}), }`;
  head += " ".repeat(63 - ((10 + head.length) % 64)) + "\n";
  const start = new Uint8Array([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, head.length & 255, head.length >> 8]);
  return new Blob([start, head, array.values]);
};

// ---- TIFF: classic, in strips or tiles, as it is or deflated ---------------------------------------------------------

const TIFF_SIZES = { 1: 1, 3: 2, 4: 4 };
const PIXELS_MAX = 1 << 28;

const tiffTags = (view, little) => {
  const tags = {};
  let at = view.getUint32(4, little);
  for (let left = view.getUint16(at, little); left > 0; left--) {
    const entry = at + 2 + (left - 1) * 12;
    const size = TIFF_SIZES[view.getUint16(entry + 2, little)], count = view.getUint32(entry + 4, little);
    if (!size || count > 1 << 22) continue;
    const place = size * count <= 4 ? entry + 8 : view.getUint32(entry + 8, little);
    tags[view.getUint16(entry, little)] = Array.from({ length: count }, (_, i) => size === 1 ? view.getUint8(place + i)
      : size === 2 ? view.getUint16(place + 2 * i, little) : view.getUint32(place + 4 * i, little));
  }
  return tags;
};

const inflate = async (bytes) =>
  new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());

const undoDifferences = (values, across, samples) => {
  for (let row = 0; row < values.length; row += across * samples)
    for (let i = samples; i < across * samples; i++) values[row + i] += values[row + i - samples];
};

const readTiff = async (buffer) => {
  const view = new DataView(buffer), order = view.getUint16(0), little = order === 0x4949;
  if ((order !== 0x4949 && order !== 0x4d4d) || view.getUint16(2, little) !== 42) throw new Error("This is no TIFF file (BigTIFF is not read here).");
  const tags = tiffTags(view, little), one = (tag, usual) => (tags[tag] || [usual])[0];
  const width = one(256, 0), height = one(257, 0), bands = one(277, 1), bits = one(258, 1), packing = one(259, 1);
  const kind = { 1: "u", 2: "i", 3: "f" }[one(339, 1)] + bits / 8;
  if (![1, 8, 32946].includes(packing)) throw new Error(`TIFF compression ${packing} is not read here: none and deflate are. gdal_translate -co COMPRESS=DEFLATE helps.`);
  if (!KINDS[kind] || (one(317, 1) > 1 && kind[0] === "f") || one(317, 1) > 2) throw new Error(`TIFF samples of ${bits} bits of this kind are not read here.`);
  const [dtype, Kind] = KINDS[kind];
  const planar = one(284, 1) === 2, tiled = Boolean(tags[322]);
  const across = tiled ? one(322) : width, down = tiled ? one(323) : Math.min(one(278, height), height);
  const starts = tags[tiled ? 324 : 273] || [], sizes = tags[tiled ? 325 : 279] || [];
  if (!(width * height * bands > 0 && width * height * bands <= PIXELS_MAX && across > 0 && down > 0 && across * down <= PIXELS_MAX)) throw new Error("The TIFF's sizes make no sense, or are too large for this page.");
  const perRow = Math.ceil(width / across), perPlane = perRow * Math.ceil(height / down);
  const samples = planar ? 1 : bands, values = new Kind(width * height * bands);
  for (let number = 0; number < perPlane * (planar ? bands : 1); number++) {
    let bytes = new Uint8Array(buffer).subarray(starts[number], starts[number] + sizes[number]);
    if (packing !== 1) bytes = await inflate(bytes);
    const block = typed(bytes, Kind, !little), inPlane = number % perPlane, plane = Math.floor(number / perPlane);
    const left = (inPlane % perRow) * across, top = Math.floor(inPlane / perRow) * down;
    if (one(317, 1) === 2) undoDifferences(block, across, samples);
    for (let y = 0; y < Math.min(down, height - top); y++)
      for (let x = 0; x < Math.min(across, width - left); x++)
        for (let s = 0; s < samples; s++)
          values[((planar ? plane : s) * height + top + y) * width + left + x] = block[(y * across + x) * samples + s];
  }
  return { dtype, shape: [bands, height, width], values };
};

// ---- pictures --------------------------------------------------------------------------------------------------------

// Each band from its 2nd to its 98th percentile.
const stretch = (array, band) => {
  const size = array.shape[1] * array.shape[2], values = array.values.subarray(band * size, (band + 1) * size);
  const step = Math.max(1, Math.floor(size / 20000)), some = [];
  for (let i = 0; i < size; i += step) some.push(values[i]);
  some.sort((a, b) => a - b);
  const low = some[Math.floor(some.length * 0.02)], high = some[Math.floor(some.length * 0.98)];
  return (i) => ((values[i] - low) / (high - low || 1)) * 255;
};

const paint = (canvas, width, height, pixel) => {
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    const [r, g, b] = pixel(i);
    image.data.set([r, g, b, 255], 4 * i);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
};

const rgbOf = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));

// Waves: a pattern to see the way through with, not land.
const sampleTile = (facts) => {
  const step = facts.size_multiple || 1, wanted = facts.tile || 256;
  const side = Math.max(facts.size_min || 1, Math.ceil(wanted / step) * step);
  const dtype = facts.dtypes.includes("uint16") ? "uint16" : facts.dtypes.includes("float32") ? "float32" : "uint8";
  const Kind = Object.values(KINDS).find((one) => one[0] === dtype)[1], channels = facts.channels || 1;
  const most = dtype === "uint8" ? 255 : 4000, values = new Kind(channels * side * side);
  for (let c = 0, i = 0; c < channels; c++)
    for (let y = 0; y < side; y++)
      for (let x = 0; x < side; x++, i++)
        values[i] = most * (0.1 + 0.4 * (1 + Math.sin(x / 23 + c / 3) * Math.cos(y / 31 - c / 5)) * (0.3 + 0.7 * x / side) * (c + 2) / (channels + 1));
  return { dtype, shape: [channels, side, side], values };
};

// ---- asking ----------------------------------------------------------------------------------------------------------

const keyField = document.getElementById("key");
let asksKeys = true; // else tokens
const isToken = (text) => !asksKeys || /^[\w-]+\.[\w-]+\.[\w-]+$/.test(text);
const keyHeaders = () => (!keyField.value ? {} : isToken(keyField.value) ? { Authorization: `Bearer ${keyField.value}` } : { "X-API-Key": keyField.value });
const keyWords = () => (isToken(keyField.value) ? ["-H \"Authorization: Bearer $TOKEN\""] : ["-H \"X-API-Key: $UNETSERVE_API_KEY\""]);

const timingTable = (response, tookMs) => {
  const parts = (response.headers.get("Server-Timing") || "").split(",").map((one) => /(\w+);dur=([\d.]+)/.exec(one)).filter(Boolean);
  return make("p", { class: "hint timing" }, `${parts.map(([, name, ms]) => `${name} ${Number(ms).toFixed(1)} ms`).join(" · ")} · in all ${tookMs.toFixed(0)} ms`);
};

const ask = async (result, path, options) => {
  result.replaceChildren(make("p", {}, "Asking …"));
  const begin = performance.now();
  try {
    const response = await fetch(address(path), { ...options, headers: { ...options.headers, ...keyHeaders() } });
    const body = await response.arrayBuffer();
    result.replaceChildren(make("p", { class: response.ok ? "status" : "status bad" }, `${response.status} ${response.statusText}`), timingTable(response, performance.now() - begin));
    return { response, body };
  } catch (error) {
    result.replaceChildren(make("p", { class: "bad" }, `No answer: ${error.message}`));
    return null;
  }
};

const showText = (result, body) => {
  const text = new TextDecoder().decode(body), shown = text.length > 20000 ? text.slice(0, 20000) + " …" : text;
  result.append(make("pre", { tabindex: "0", "aria-label": "answer" }, shown));
};

const quoted = (text) => `'${text.replace(/'/g, "'\\''")}'`;
const curlText = (path, ...words) => ["curl", ...(keyField.value || !document.getElementById("key-row").hidden ? keyWords() : []), ...words, quoted(address(path))].join(" ");

// ---- forms -----------------------------------------------------------------------------------------------------------

const documentForm = (path, facts) => {
  const field = make("textarea", { "aria-label": "request body", spellcheck: "false" });
  const curl = make("pre", { class: "curl" }), result = make("div", { class: "result", "aria-live": "polite" });
  const update = () => { curl.textContent = curlText(path, "-H 'Content-Type: application/json'", `-d ${quoted(field.value)}`); };
  const text = JSON.stringify(facts.example);
  field.value = text.length > 80 ? JSON.stringify(facts.example, null, 1) : text;
  field.addEventListener("input", update);
  update();
  const send = async () => {
    const answer = await ask(result, path, { method: "POST", headers: { "Content-Type": "application/json" }, body: field.value });
    if (answer) showText(result, answer.body);
  };
  return [make("h3", {}, "Request"), field, make("div", { class: "row" }, make("button", { class: "send", type: "button", onclick: send }, "Send")), curl, result];
};

const legend = (labels, classes) => {
  const counts = new Array(256).fill(0);
  for (const label of labels) counts[label]++;
  const rows = counts.map((count, label) => ({ count, label })).filter((one) => one.count).sort((a, b) => b.count - a.count).map(({ count, label }) => {
    const swatch = make("span", { class: "swatch" });
    swatch.style.background = (classes[label] || {}).color || "#888888";
    return make("tr", {}, make("td", {}, swatch), make("td", {}, (classes[label] || {}).name || `class ${label}`), make("td", { class: "number" }, `${((100 * count) / labels.length).toFixed(1)} %`));
  });
  return make("table", { class: "legend" }, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "colour"), make("th", { scope: "col" }, "class"), make("th", { scope: "col", class: "number" }, "share"))), make("tbody", {}, ...rows));
};

const showMask = (place, body, facts) => {
  const mask = readNpy(body), [height, width] = mask.shape.slice(-2), canvas = make("canvas", { class: "mask", role: "img", "aria-label": "mask" });
  const colors = facts.classes.map((one) => rgbOf(one.color)), labels = mask.values.subarray(0, height * width);
  paint(canvas, width, height, (i) => colors[labels[i]] || [136, 136, 136]);
  place.replaceChildren(make("figure", {}, canvas, make("figcaption", {}, `mask, ${height} × ${width}`)), make("div", {}, legend(labels, facts.classes)));
};

const bandPickers = (array, usual, repaint) => ["red", "green", "blue"].map((name, n) => {
  const select = make("select", { class: "band", onchange: repaint });
  for (let band = 0; band < array.shape[0]; band++) select.append(make("option", { value: band }, `band ${band + 1}`));
  select.value = Math.min(usual[n], array.shape[0] - 1);
  return make("label", {}, `${name} `, select);
});

const tensorForm = (path, facts) => {
  let array = null;
  const file = make("input", { type: "file", class: "file", accept: ".npy,.tif,.tiff", "aria-label": "a GeoTIFF or npy file" });
  const told = make("p", { class: "told hint" }, "Nothing chosen yet."), bands = make("div", { class: "row" });
  const left = make("div"), right = make("div", { class: "pictures" }), result = make("div", { class: "result", "aria-live": "polite" });
  const send = make("button", { class: "send", type: "button", disabled: true }, "Send");
  const canvas = make("canvas", { class: "bands", role: "img", "aria-label": "bands" });
  const take = (fresh, name) => {
    if (fresh.shape.length === 4 && fresh.shape[0] === 1) fresh.shape = fresh.shape.slice(1);
    if (fresh.shape.length !== 3) throw new Error(`${name} has the shape ${fresh.shape.join(" × ")}; the page shows one tile, channels × height × width.`);
    array = fresh;
    const [channels, height, width] = array.shape;
    told.className = "told hint";
    told.textContent = `${name}: ${array.dtype}, ${channels} × ${height} × ${width}${facts.channels && channels !== facts.channels ? `; the model takes ${facts.channels} bands` : ""}`;
    const repaint = () => {
      const [r, g, b] = [...bands.querySelectorAll("select")].map((one) => stretch(array, Number(one.value)));
      paint(canvas, width, height, (i) => [r(i), g(i), b(i)]);
    };
    bands.replaceChildren(...bandPickers(array, channels >= 4 ? [3, 2, 1] : [0, 1, 2], repaint));
    left.replaceChildren(make("figure", {}, canvas, make("figcaption", {}, `bands, ${height} × ${width}`)));
    right.replaceChildren(left);
    result.replaceChildren();
    repaint();
    send.disabled = false;
  };
  const open = async (chosen) => {
    try {
      const buffer = await chosen.arrayBuffer();
      take(/\.tiff?$/i.test(chosen.name) ? await readTiff(buffer) : readNpy(buffer), chosen.name);
    } catch (error) {
      told.className = "told bad";
      told.textContent = error.message;
    }
  };
  file.addEventListener("change", () => file.files.length && open(file.files[0]));
  send.addEventListener("click", async () => {
    send.disabled = true;
    const answer = await ask(result, path, { method: "POST", headers: { "Content-Type": "application/x-npy", Accept: "application/x-npy" }, body: writeNpy(array) });
    send.disabled = false;
    if (!answer) return;
    if (!answer.response.ok) return showText(result, answer.body);
    const place = make("div", { class: "pictures" });
    showMask(place, answer.body, facts);
    right.replaceChildren(left, ...place.children);
  });
  const drop = make("div", { class: "drop" }, make("p", {}, "Drop a GeoTIFF or an npy here, or choose one:"), make("div", { class: "row" }, file,
    make("button", { class: "sample", type: "button", onclick: () => take(sampleTile(facts), "a made-up pattern") }, "Made-up tile")), told);
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => { event.preventDefault(); drop.classList.remove("over"); if (event.dataTransfer.files.length) open(event.dataTransfer.files[0]); });
  const curl = make("pre", { class: "curl" }, curlText(path, "-H 'Content-Type: application/x-npy'", "-H 'Accept: image/png'", "--data-binary @tile.npy", "-o mask.png"));
  return [drop, bands, make("div", { class: "row" }, send), result, right, make("h3", {}, "With curl"), curl];
};

const pageForm = (path) => {
  const result = make("div", { class: "result", "aria-live": "polite" });
  const send = async () => {
    const answer = await ask(result, path, { method: "GET" });
    if (answer) showText(result, answer.body);
  };
  return [make("div", { class: "row" }, make("button", { class: "send", type: "button", onclick: send }, "Send")), make("pre", { class: "curl" }, curlText(path)), result];
};

// ---- the page --------------------------------------------------------------------------------------------------------

const describe = (facts) => facts.request === "tensor"
  ? `${facts.channels || "any number of"} channels, sides ${facts.size_multiple > 1 ? `multiples of ${facts.size_multiple}` : "of any size"} from ${facts.size_min || 1}; ${facts.classes ? `${facts.classes.length} classes` : "a document"}`
  : facts.streams ? "a JSON document; the answer is a stream of them" : "a JSON document";

const statuses = (document_, operation) => make("table", {}, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "status"), make("th", { scope: "col" }, "means"))), make("tbody", {}, ...Object.entries(operation.responses).map(([code, what]) => {
  const known = what.$ref ? document_.components.responses[what.$ref.split("/").pop()] : what;
  return make("tr", {}, make("td", {}, code), make("td", {}, known.description));
})));

const show = (document_) => {
  document.getElementById("version").textContent = document_.info.version;
  document.getElementById("key-row").hidden = !document_.security;
  asksKeys = Boolean(document_.components.securitySchemes && document_.components.securitySchemes.ApiKey);
  for (const [path, item] of Object.entries(document_.paths)) {
    const [method, operation] = Object.entries(item)[0], facts = operation["x-unetserve-model"];
    const form = !facts ? pageForm(path) : facts.request === "tensor" && facts.answer === "labels" ? tensorForm(path, facts) : facts.request === "tensor" ? [make("p", {}, "Takes tensors and answers with documents of its own: see openapi.json.")] : documentForm(path, facts);
    const entry = make("details", { "data-path": path, open: Boolean(facts) }, make("summary", {}, make("span", { class: "method" }, method.toUpperCase()), make("span", { class: "path" }, path), make("span", { class: "hint" }, facts ? `${[facts.name, facts.version].filter(Boolean).join(" ")}: ${describe(facts)}` : operation.summary)),
      make("div", {}, ...form, make("details", {}, make("summary", {}, "What it may answer"), make("div", {}, statuses(document_, operation)))));
    document.getElementById(facts ? "models" : "pages").append(entry);
  }
  document.getElementById("notice").remove();
};

fetch(base).then((response) => response.json()).then(show).catch((error) => {
  document.getElementById("notice").textContent = `openapi.json cannot be read: ${error.message}`;
});
