// What failed: jobs that are out of tries, and runs that nobody queued. Each with its error, what to do, its log, a retry.
import { act } from "./actions.mjs";
import { api } from "./api.mjs";
import { Bulk, Choose, useChosen } from "./bulk.mjs";
import { html } from "./html.mjs";
import { useLive } from "./live.mjs";
import { Badge, Live, Name, Problem, Section, Time, Value, Work, Writing } from "./parts.mjs";
import { retryJob } from "./queued.mjs";
import { addressOf } from "./route.mjs";
import { Allow, mayBeAllowed } from "./take_back.mjs";
import { many } from "./text.mjs";
import { useState } from "./vendor/hooks.mjs";

const AGAIN = { sync: "sync", verify: "verify", drill: "drill" };
const AT_ONCE = 20;
const PAST_AT_FIRST = 3;
export const SET_FAILED = ["SetFailed", "SetNotWhole"];
const OF_SET = 200;
const LOOKS = 5; // each of which reads a thousand runs at most
const ALLOWED_AT_ONCE = 3;

// Failed jobs and failed runs without a job, newest first. A run of a failed job is part of that job. `over`: the service
// has succeeded since.
async function askFailures(service) {
  const [{ jobs, cursor }, { runs, cursor: runsCursor }] = await Promise.all([
    api.jobs({ state: "Failed", type: service, limit: AT_ONCE }),
    api.runs({ status: "Failed", service, limit: AT_ONCE }),
  ]);
  const known = new Set(jobs.map((job) => job.jobId));
  const failures = [...jobs.map(ofJob), ...runs.filter((run) => !known.has(run.jobId)).map(ofRun)].sort((a, b) => new Date(b.at) - new Date(a.at));
  const ofSets = [...newestOf(failures)].filter((failure) => SET_FAILED.includes(failure.errorKind) && failure.job);
  await Promise.all(ofSets.map(async (failure) => {
    failure.guarded = (await askFailedRuns(failure.job)).runs.filter((run) => mayBeAllowed(run) && !run.succeededSince);
  }));
  return { failures, more: cursor !== null || runsCursor !== null };
}

// The failed runs of the services of a set that one job synced; `more`: whether there may be others.
async function askFailedRuns({ jobId }) {
  let found = [];
  let cursor;
  for (let look = 0; look < LOOKS && cursor !== null && found.length < OF_SET; look += 1) {
    const page = await api.runs({ status: "Failed", q: jobId, limit: OF_SET, cursor });
    found = [...found, ...page.runs.filter((run) => run.jobId === jobId && !SET_FAILED.includes(run.errorKind))];
    cursor = page.cursor;
  }
  return { runs: found, more: cursor !== null };
}

// `guarded`: what may pass the guard once. That of a job of a set are the runs of its services.
function ofJob(job) {
  const { service, verb } = job.job;
  const own = { service, verb, error: job.error, errorKind: job.errorKind, hint: job.hint };
  return { ...own, id: job.jobId, at: job.endedAt ?? job.stateAt ?? job.createdAt, job, over: job.succeededSince === true, guarded: mayBeAllowed(own) ? [own] : [], link: addressOf("job", job.jobId) };
}

function ofRun(run) {
  const { service, verb, error, errorKind, hint } = run;
  return { service, verb, error, errorKind, hint, id: run.syncId, at: run.completedAt ?? run.startedAt, over: run.succeededSince === true, guarded: mayBeAllowed(run) ? [run] : [], link: addressOf("run", run.syncId) };
}

// A failure that a success of its service has followed is over, and says so. None is ever left out.
export function Failures({ service }) {
  const live = useLive(() => askFailures(service), ["failures", service], 10);
  const [all, setAll] = useState(false);
  const chosen = useChosen((live.data?.failures ?? []).filter((failure) => failure.job).map((failure) => failure.id));
  const open = (live.data?.failures ?? []).filter((failure) => !failure.over).length;
  return html`<${Section} id="failures" title="Failures" note=${live.data && noteOf(live.data, open)}
      aside=${chosen.list.length > 0 && html`<${Bulk} chosen=${chosen} />`}>
    <${Live} live=${live} empty=${(data) => data.failures.length === 0 && html`<p class="calm">${data.more ? html`None of the newest runs has failed. <a href=${olderOf(service)}>Older failures would be among the runs</a>` : "No failure is on record."}</p>`}>
      ${({ failures, more }) => {
        const newest = newestOf(failures.filter((each) => !each.over));
        const past = failures.filter((each) => !newest.has(each));
        const visible = all ? past : past.slice(0, PAST_AT_FIRST);
        return html`<ul class="failures">
          ${[...newest].map((failure) => html`<${Failure} key=${failure.id} failure=${failure} chosen=${chosen} />`)}
          ${visible.map((failure) => html`<${Past} key=${failure.id} failure=${failure} chosen=${chosen} />`)}
        </ul>
        ${visible.length < past.length && html`<button type="button" class="outline small" onClick=${() => setAll(true)}>Show ${many(past.length - visible.length, "earlier failure")}</button>`}
        ${more && visible.length === past.length && html`<p><a href=${olderOf(service)}>Older failures are among the runs</a></p>`}`;
      }}
    <//>
  <//>`;
}

const olderOf = (service) => addressOf("overview", "", { status: "Failed", service });

// Of each service and verb the newest: what failed before it is told in a line.
function newestOf(failures) {
  const by = new Map();
  for (const failure of failures) {
    const what = `${failure.verb} ${failure.service}`;
    if (!by.has(what)) by.set(what, failure);
  }
  return new Set(by.values());
}

function noteOf({ failures, more }, open) {
  if (failures.length === 0) return null;
  const rest = failures.length - open;
  const old = rest > 0 ? `${many(rest, "older failure")} ${rest === 1 ? "was" : "were"} followed by a success${more ? ", and there are more" : ""}.` : "";
  return open === 0 ? `None is open: ${old}` : `No success has followed ${many(open, "failure")} yet${more ? ", and there may be more" : ""}. ${old}`;
}

function Failure({ failure, chosen }) {
  return html`<li class="failure">
    <div class="failure-head">
      ${failure.job && html`<${ChooseFailed} failure=${failure} chosen=${chosen} />`}
      <strong><${Name} text=${failure.service} /></strong> <span>${failure.verb}</span> <${Badge} state="Failed" />
      <${Time} at=${failure.at} inline />
    </div>
    <${Problem} error=${failure.error ?? "It failed without a message."} hint=${failure.hint} kind=${failure.errorKind} />
    <div class="row">
      <${Writing}>${failure.job
        ? html`<${Work} class="small outline" onWork=${() => retryJob(failure.id, failure.service)}>Retry<//>`
        : failure.verb in AGAIN && html`<${Work} class="small outline" onWork=${() => act(AGAIN[failure.verb], failure.service)}>Run again<//>`}<//>
      ${failure.guarded.slice(0, ALLOWED_AT_ONCE).map(({ service, error }) => html`<${Allow} key=${service} service=${service} error=${error} of=${failure.guarded.length > 1} />`)}
      ${failure.guarded.length > ALLOWED_AT_ONCE && html`<a href=${failure.link}>and ${failure.guarded.length - ALLOWED_AT_ONCE} more</a>`}
      <a class="button small ghost" href=${failure.link}>${failure.job ? "States and log" : "The run"}</a>
      ${failure.job && html`<${Log} id=${failure.id} />`}
    </div>
  </li>`;
}

// A failure that a success, or another failure, has followed: one line, which leads to the rest.
function Past({ failure, chosen }) {
  return html`<li class="failure over">
    ${failure.job && html`<${ChooseFailed} failure=${failure} chosen=${chosen} />`}
    <a href=${failure.link}><${Name} text=${failure.service} /> ${failure.verb}</a>
    ${failure.over ? html`<${Badge} state="Succeeded" label="succeeded since" />` : html`<${Badge} state="Failed" label="failed again since" />`}
    <${Time} at=${failure.at} inline />
    <span class="dim past-error"><${Value} text=${failure.error ?? "It failed without a message."} clip=${120} /></span>
  </li>`;
}

function ChooseFailed({ failure, chosen }) {
  return html`<${Choose} chosen=${chosen} id=${failure.id} label=${`Choose the failed job of ${failure.service}`} />`;
}

function Log({ id }) {
  const [state, setState] = useState(null);
  const show = async () => {
    if (state) return setState(null);
    try {
      const { log, hint } = await api.job(id);
      setState({ lines: log, hint });
    } catch (error) {
      setState({ lines: [error.message] });
    }
  };
  return html`<button type="button" class="small ghost" aria-expanded=${state !== null} onClick=${show}>${state ? "Hide the last lines" : "Last lines of the log"}</button>
    ${state && html`<pre class="log" tabindex="0" aria-label="The last lines of the log">${state.lines.slice(-20).join("\n") || "It logged nothing."}</pre>`}`;
}

// The services of a set whose syncs one job has failed at, each with its error and what may be done.
export function FailedServices({ job }) {
  const live = useLive(() => askFailedRuns(job), ["failed services", job.jobId], 30);
  const rest = addressOf("overview", "", { status: "Failed", q: job.jobId });
  return html`<${Live} live=${live} empty=${({ runs, more }) => runs.length === 0 && !more && html`<p class="calm">No run of a service is on record as failed.</p>`}>
    ${({ runs, more }) => html`<h2>Services that failed</h2><ul class="failures">${runs.map((run) => html`<li class="failure" key=${run.syncId}>
      <div class="failure-head"><strong><a href=${addressOf("run", run.syncId)}><${Name} text=${run.service} /></a></strong> <${Time} at=${run.completedAt ?? run.startedAt} inline />
        ${run.succeededSince && html`<${Badge} state="Succeeded" label="succeeded since" />`}</div>
      <${Problem} error=${run.error ?? "It failed without a message."} hint=${run.hint} kind=${run.errorKind} />
      ${mayBeAllowed(run) && !run.succeededSince && html`<div class="row"><${Allow} service=${run.service} error=${run.error} /></div>`}
    </li>`)}</ul>
      ${more && html`<p class="calm">These need not be all. <a href=${rest}>The others would be among the runs</a></p>`}`}
  <//>`;
}
