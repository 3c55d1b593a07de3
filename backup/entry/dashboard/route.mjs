// The address: which view, and its filters. What is shown can be kept as a bookmark and sent to a colleague.
//
// #/            the overview       #/?service=customer&status=Failed   with filters
// #/service/N   one service        #/run/ID      one run               #/job/ID   one job
import { Store } from "./store.mjs";

export const route = new Store(parse(location.hash));

addEventListener("hashchange", () => {
  const next = parse(location.hash);
  const moved = next.view !== route.value.view || next.name !== route.value.name;
  route.value = next;
  if (moved) onMove();
});

function parse(hash) {
  const [where, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [view = "", ...rest] = where.split("/");
  return { view: view || "overview", name: decoded(rest.join("/")), filters: Object.fromEntries(new URLSearchParams(query)) };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function addressOf(view, name = "", filters = {}) {
  const given = Object.entries(filters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(given).toString();
  const where = view === "overview" ? "" : `${view}/${encodeURIComponent(name)}`;
  return `#/${where}${query ? `?${query}` : ""}`;
}

// Changes filters of the address. `back`: whether the browser's button leads back to what was before.
export function setFilters(changes, back = true) {
  const { view, name, filters } = route.value;
  const address = addressOf(view, name, { ...filters, ...changes });
  if (back) {
    location.hash = address;
    return;
  }
  history.replaceState(null, "", address);
  route.value = parse(address);
}

export function go(address) {
  location.hash = address;
}

// Another view begins at its top, with its heading in focus: a screen reader reads it, the next Tab is its first link.
function onMove() {
  requestAnimationFrame(() => {
    scrollTo(0, 0);
    document.querySelector("main h1")?.focus();
  });
}
