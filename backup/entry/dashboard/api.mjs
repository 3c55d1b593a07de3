// The JSON API: the only module that knows its addresses. The key goes into a header, never into an address.
import { hear, now } from "./clock.mjs";
import { parseExactly } from "./exact.mjs";
import { Store } from "./store.mjs";

const API = new URL("../", import.meta.url);
const KEY_NAME = "backup.key";
const READ_SECONDS = 30;
const SIGNED_OUT = { Message: "The app asks who you are.", Hint: "Load this page anew to sign in." };
const WORK_SECONDS = 240; // Azure ends a request after 230 s

// "tried": one request finds out whether a key is needed, and whether it is right, before all others are sent. "open": all
// may be sent. "asked": a key is needed. "wrong": the one that was typed is not it. "refused": this person may not look.
export const access = new Store("tried");
// What was said to whom is refused.
export const refusal = new Store(null);
// Who asks, as the app sees it. Whoever may not write gets no button that does.
export const caller = new Store({ name: null, mayWrite: true });
// Whether the server answers: since when it does not (milliseconds), else null.
export const silentSince = new Store(null);

// What the server answered instead of what was asked for.
export class Refused extends Error {
  constructor(status, body) {
    super(body.Message || body.message || `The server answered with status ${status}.`);
    this.status = status;
    this.kind = body.Error || null;
    this.hint = body.Hint || null;
    this.body = body;
  }
}

// No answer, or one that is not of the app: a stopped app, a gateway, no network.
export class NotAnswered extends Error {}

export function setKey(key) {
  if (key) sessionStorage.setItem(KEY_NAME, key);
  else sessionStorage.removeItem(KEY_NAME);
  access.value = "tried";
}

export function hasKey() {
  return sessionStorage.getItem(KEY_NAME) !== null;
}

async function call(method, path, { query = {}, body, seconds = READ_SECONDS } = {}) {
  const address = new URL(path, API);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") address.searchParams.set(name, value);
  }
  const key = sessionStorage.getItem(KEY_NAME);
  const headers = { Accept: "application/json" };
  if (key) headers["x-functions-key"] = key;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response, answer;
  try {
    response = await fetch(address, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      credentials: "same-origin",
      redirect: "manual", // to a page where one signs in, which is of another host
      signal: AbortSignal.timeout(seconds * 1000),
    });
    if (response.type === "opaqueredirect") throw new Refused(302, SIGNED_OUT);
    hear(response.headers.get("date"));
    const text = await response.text();
    answer = text ? parseExactly(text) : {};
    if (answer === null || typeof answer !== "object") throw new TypeError("not an answer of this API");
  } catch (error) {
    if (error instanceof Refused) throw error;
    if (response?.status === 401) return refuse401(key);
    if (error.name === "TimeoutError") throw new NotAnswered(`The server did not answer within ${seconds} seconds.`);
    silentSince.value ??= now();
    throw new NotAnswered(response ? "The answer is not the app's: it may be stopped." : "The server cannot be reached.");
  }
  silentSince.value = null;
  if (response.status === 401) return refuse401(key);
  if (!response.ok) throw new Refused(response.status, answer);
  return answer;
}

function refuse401(key) {
  // A key that was typed meanwhile is not blamed for the one before it.
  if (key === sessionStorage.getItem(KEY_NAME)) {
    sessionStorage.removeItem(KEY_NAME);
    access.value = key ? "wrong" : "asked";
  }
  throw new Refused(401, { Message: "The key is missing or wrong.", Error: "Unauthorized" });
}

const path = (...parts) => parts.map(encodeURIComponent).join("/");
const get = (where, query) => call("GET", where, { query });
const post = (where, body) => call("POST", where, { body, seconds: WORK_SECONDS });
const ofRun = (id, what) => `sync/dashboard/runs/${path(id)}${what}`;
const ofJob = (id, what = "") => `sync/dashboard/jobs/${path(id)}${what}`;

export const api = {
  me: () => get("sync/dashboard/me"),
  isUp: () => call("GET", "health"),
  overview: (query) => get("sync/dashboard/overview", query),
  queue: () => get("sync/dashboard/summary", { limit: 1 }).then((answer) => answer.queueStats),
  calendar: (query) => get("sync/dashboard/calendar", query),
  jobs: (query) => get("sync/dashboard/jobs", query),
  job: (id) => get(ofJob(id)),
  retry: (id) => post(ofJob(id, "/retry")),
  remove: (id) => call("DELETE", ofJob(id)),
  toJobs: (action, jobIds) => post("sync/dashboard/jobs/bulk", { action, jobIds }),
  runs: (query) => get("sync/history", query),
  run: (id) => get(ofRun(id, "")),
  changes: (id, query) => get(ofRun(id, "/changes"), query),
  record: (id, key) => get(ofRun(id, "/changes/record"), { key }),
  undo: (id, body) => post(ofRun(id, "/undo"), body),
  restore: (id, body) => post(ofRun(id, "/restore"), body),
  start: (body) => post("sync/start", body),
  dryRun: (service) => call("POST", `backup/sync/${path(service)}`, { query: { dryRun: true, allowMassDelete: true }, seconds: WORK_SECONDS }),
  verify: (body) => post("sync/dashboard/verify", body),
  testNotify: () => post("sync/dashboard/notify/test"),
};

// Sends the one request that tells whether all others may be sent. Throws nothing: a silent server is tried again later.
export async function tryKey() {
  try {
    caller.value = await api.me();
  } catch (error) {
    if (error instanceof NotAnswered || error.status === 401) return;
    if (error.status === 403) {
      refusal.value = error;
      access.value = "refused";
      return;
    }
  }
  access.value = "open";
}
