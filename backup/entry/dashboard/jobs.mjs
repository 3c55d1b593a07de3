// Jobs that run and wait, with live progress; and one job with its states and its log.
import { api } from "./api.mjs";
import { Bulk, Choose, ChooseAll, useChosen } from "./bulk.mjs";
import { now } from "./clock.mjs";
import { html } from "./html.mjs";
import { refreshCalmly, useLive } from "./live.mjs";
import { FailedServices, SET_FAILED } from "./failures.mjs";
import { Back, Badge, Live, Name, Problem, Section, Table, Time, Value, Work, Writing } from "./parts.mjs";
import { removeJob, retryJob } from "./queued.mjs";
import { addressOf } from "./route.mjs";
import { Allow, mayBeAllowed } from "./take_back.mjs";
import { duration, exact, many, number } from "./text.mjs";
import { useEffect, useRef } from "./vendor/hooks.mjs";

const RUNNING_SECONDS = 2;
const CALM_SECONDS = 6;
const LONG_MS = 150_000;
const ENDED = new Set(["Succeeded", "Failed", "Deleted"]);

// Waiting and running jobs, those that run first. Three short lists, each by an index.
async function askOpen(service) {
  const pages = await Promise.all(
    ["Processing", "Enqueued", "Scheduled"].map((state) => api.jobs({ state, type: service, limit: 50 })),
  );
  return { jobs: pages.flatMap((page) => page.jobs), more: pages.some((page) => page.cursor !== null) };
}

export function OpenJobs({ service }) {
  const live = useLive(() => askOpen(service), ["open", service], CALM_SECONDS);
  const jobs = live.data?.jobs ?? [];
  const runs = jobs.filter((job) => job.state === "Processing").length;
  const chosen = useChosen(jobs.map((job) => job.jobId));
  const known = useRef([]);
  useEffect(() => {
    const ids = jobs.map((job) => job.jobId);
    if (known.current.some((id) => !ids.includes(id))) refreshCalmly(); // one has ended: the rest of the page tells how
    known.current = ids;
  }, [live.data]);
  return html`<${Section} id="jobs" title="Running and waiting" note=${jobs.length > 0 && `${many(runs, "job")} at work, ${jobs.length - runs} waiting${live.data.more ? ", and more that wait" : ""}.`}
      aside=${chosen.list.length > 0 ? html`<${Bulk} chosen=${chosen} mayRetry=${false} />` : jobs.length > 1 && html`<${ChooseAll} chosen=${chosen} label="Choose all" />`}>
    ${jobs.some((job) => job.state !== "Scheduled") && html`<${Faster} live=${live} />`}
    ${jobs.some(waitsLong) && html`<${NoWorker} />`}
    <${Live} live=${live} empty=${(data) => data.jobs.length === 0 && html`<p class="calm">Nothing runs and nothing waits.</p>`}>
      ${() => html`<ul class="jobs">${jobs.map((job) => html`<${OpenJob} key=${job.jobId} job=${job} chosen=${chosen} />`)}</ul>`}
    <//>
  <//>`;
}

const waitsLong = (job) => job.state === "Enqueued" && now() - new Date(job.stateAt ?? job.createdAt) > LONG_MS;

// Says so where nobody works on what waits.
function NoWorker() {
  const live = useLive(api.queue, ["queue"], CALM_SECONDS);
  return live.data?.servers === 0 && html`<div role="alert" data-variant="danger">Nothing works on jobs: no worker was seen in the last two minutes.
    In Azure, look whether the app runs and WorkOnJob is enabled. Elsewhere, start <code>python -m backup work</code>. What waits is not lost.</div>`;
}

// While something runs, asks more often than the list itself does.
function Faster({ live }) {
  useLive(live.reload, ["faster"], RUNNING_SECONDS);
  return null;
}

function OpenJob({ job, chosen }) {
  const runs = job.state === "Processing";
  const stops = job.cancelled && runs;
  return html`<li class="job">
    <${Choose} chosen=${chosen} id=${job.jobId} label=${`Choose the job of ${job.job.service}`} />
    <div class="job-what">
      <strong><a href=${addressOf("job", job.jobId)}><${Name} text=${job.job.service} /></a></strong>
      <span>${wordsOf(job)}</span>
      <${Badge} state=${stops ? "Stopping" : job.state} label=${stops ? "Stopping at its next batch" : undefined} />
    </div>
    <div class="job-progress">
      ${runs
        ? html`<progress max="100" value=${job.progress} aria-label=${`Progress of ${job.job.service}`}></progress><span>${job.progress} % · ${countsOf(job.counts)}</span>`
        : html`<span class="dim">${job.dueAt ? html`waits; due <${Time} at=${job.dueAt} inline />` : html`waits since <${Time} at=${job.stateAt ?? job.createdAt} inline />`}</span>`}
    </div>
    <${Writing}><${Work} class="small outline" disabled=${stops} onWork=${() => removeJob(job.jobId, job.job.service, runs)}>${runs ? "Stop" : "Delete"}<//><//>
  </li>`;
}

function wordsOf({ job, trigger, requestedBy, attempt }) {
  const words = [job.dryRun ? `dry run of a ${job.verb}` : job.forceFullSync ? `forced ${job.verb}` : job.verb];
  if (job.allowMassDelete) words.push("past the guard");
  if (job.limit) words.push(`at most ${many(job.limit, "change")}`);
  words.push(requestedBy ? `by ${requestedBy}` : trigger && `by ${trigger}`);
  if (attempt > 1) words.push(`attempt ${attempt}`);
  return words.filter(Boolean).join(" · ");
}

export function countsOf(counts = {}) {
  const words = ["inserted", "updated", "deleted"].filter((name) => counts[name]).map((name) => `${number(counts[name])} ${name}`);
  if (counts.skipped) words.push(`${number(counts.skipped)} unchanged`);
  if (counts.remaining) words.push(`${number(counts.remaining)} left for a later run`);
  if (counts.failed) words.push(`${number(counts.failed)} set aside`);
  return words.join(", ") || "none";
}

export function Job({ id }) {
  const live = useLive(() => api.job(id), ["job", id], CALM_SECONDS);
  const open = live.data && !ENDED.has(live.data.state);
  return html`<div class="view">
    <${Back} service=${live.data?.job.service} />
    ${open && html`<${Faster} live=${live} />`}
    <h1 tabindex="-1">Job ${live.data ? html`of <${Name} text=${live.data.job.service} />` : ""}</h1>
    <${Live} live=${live}>${(job) => html`<${JobDetails} job=${job} />`}<//>
  </div>`;
}

function JobDetails({ job }) {
  const ended = ENDED.has(job.state);
  const runs = job.state === "Processing";
  return html`
    <div class="row">
      <${Badge} state=${job.cancelled && runs ? "Stopping" : job.state} /> <span>${wordsOf(job)}</span>
      <${Writing}>${ended && html`<${Work} class="small" onWork=${() => retryJob(job.jobId, job.job.service)}>Retry<//>`}
      <${Work} class="small outline" disabled=${job.state === "Deleted" || (job.cancelled && runs)} onWork=${() => removeJob(job.jobId, job.job.service, runs)}>${runs ? "Stop" : "Delete"}<//><//>
    </div>
    ${runs && html`<p><progress max="100" value=${job.progress} aria-label="Progress"></progress> ${job.progress} %</p>`}
    ${job.error && html`<${Problem} title="Why it failed" error=${job.error} hint=${job.hint} kind=${job.errorKind} />`}
    ${SET_FAILED.includes(job.errorKind) && html`<${FailedServices} job=${job} />`}
    ${ended && mayBeAllowed({ ...job, verb: job.job.verb }) && html`<div class="row"><${Allow} service=${job.job.service} error=${job.error} /></div>`}
    <dl class="facts">
      <div><dt>Asked for</dt><dd><${Time} at=${job.createdAt} /></dd></div>
      <div><dt>Began</dt><dd><${Time} at=${job.startedAt} none="not yet" /></dd></div>
      <div><dt>Ended</dt><dd><${Time} at=${job.endedAt} none="not yet" /></dd></div>
      ${job.startedAt && job.endedAt && html`<div><dt>Took</dt><dd>${duration((new Date(job.endedAt) - new Date(job.startedAt)) / 1000)}</dd></div>`}
      <div><dt>Records</dt><dd>${countsOf(job.counts)}</dd></div>
      <div><dt>Run</dt><dd>${job.syncId ? html`<a href=${addressOf("run", job.syncId)}>${job.syncId.slice(0, 8)}</a>` : html`<span class="dim">none yet</span>`}</dd></div>
      <div><dt>Id</dt><dd><code>${job.jobId}</code></dd></div>
    </dl>
    <h2>States</h2>
    <${Table} label="States of the job" head=${["State", "When", "Why"]}>
      ${job.history.map((change) => html`<tr><th scope="row"><${Badge} state=${change.stateName} /></th><td data-label="When">${exact(change.createdAt)}</td><td data-label="Why"><div><${Value} text=${change.reason ?? ""} /></div></td></tr>`)}
    <//>
    <h2>Log</h2>
    <pre class="log" tabindex="0" aria-label="The last lines of the log">${job.log.join("\n") || "It has logged nothing yet."}</pre>
  `;
}
