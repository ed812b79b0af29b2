const $ = (id) => document.getElementById(id);
const SILENT = "The service does not respond. Is it still running?";

function element(name, attributes = {}, text = "") {
  const created = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) created.setAttribute(key, value);
  created.textContent = text;
  return created;
}

function access() {
  const token = sessionStorage.getItem("token");
  return token ? { authorization: `Bearer ${token}` } : {};
}

/** Return the message of an error of `fetch` or of the service as a sentence. */
function sentence(error) {
  if (error instanceof TypeError) return SILENT;
  return `${error.message[0].toUpperCase()}${error.message.slice(1)}${/[.?]$/.test(error.message) ? "" : "."}`;
}

const megabytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MB`;
