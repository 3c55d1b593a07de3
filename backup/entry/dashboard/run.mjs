// One run: its counts and notes, what it did to records, and what brings these back.
import { api } from "./api.mjs";
import { Changes } from "./changes.mjs";
import { html } from "./html.mjs";
import { useLive } from "./live.mjs";
import { Back, Badge, Live, Name, Problem, Time, Value } from "./parts.mjs";
import { addressOf } from "./route.mjs";
import { comparedOf, whatOf } from "./runs.mjs";
import { Allow, mayBeAllowed, Undo } from "./take_back.mjs";
import { countsOf } from "./jobs.mjs";
import { duration, number, setOf } from "./text.mjs";
import { useState } from "./vendor/hooks.mjs";

const OPEN_SECONDS = 3;
const ENDED_SECONDS = 60;

export function Run({ id }) {
  const [every, setEvery] = useState(OPEN_SECONDS);
  const live = useLive(async () => {
    const run = await api.run(id);
    setEvery(run.status === "InProgress" ? OPEN_SECONDS : ENDED_SECONDS);
    return run;
  }, ["run", id], every);
  return html`<div class="view">
    <${Back} service=${live.data?.service} />
    <h1 tabindex="-1">${live.data ? html`${wordOf(live.data.verb)} of <${Name} text=${live.data.service} />` : "Run"}</h1>
    <${Live} live=${live}>${(run) => html`<${Details} run=${run} />`}<//>
  </div>`;
}

const wordOf = (verb) => verb.charAt(0).toUpperCase() + verb.slice(1);

function Details({ run }) {
  const { inserted = 0, updated = 0, deleted = 0 } = run.counts ?? {};
  const changed = inserted + updated + deleted;
  const wrote = changed > 0 && !run.dryRun && run.status !== "InProgress";
  return html`
    <div class="row"><${Badge} state=${run.status} /> <span>${whatOf(run)}</span>
      ${run.verified && html`<${Badge} state="Succeeded" label="both sides were seen to be equal" />`}
      ${comparedOf(run) === "differs" && html`<${Badge} state="Differs" label="the sides differ" />`}
      ${run.jobId && html`<a href=${addressOf("job", run.jobId)}>Its job and log</a>`}
      ${wrote && run.verb !== "restore" && !run.ofSeveral && html`<${Undo} run=${run} />`}
    </div>
    ${run.status === "InProgress" && html`<p><progress max="100" value=${run.percent ?? 0} aria-label="Progress"></progress> ${run.percent ?? 0} %</p>`}
    ${run.error && html`<${Problem} title="Why it failed" error=${run.error} hint=${run.hint} kind=${run.errorKind} />`}
    ${mayBeAllowed(run) && html`<div class="row"><${Allow} service=${run.service} error=${run.error} /></div>`}
    ${(run.status !== "InProgress" || changed > 0) && html`<ul class="tiles">
      <${Tile} count=${inserted} word="inserted" /><${Tile} count=${updated} word="updated" /><${Tile} count=${deleted} word="deleted" />
      <${Tile} count=${run.counts?.skipped ?? 0} word="unchanged" />
      ${run.counts?.remaining > 0 && html`<${Tile} count=${run.counts.remaining} word="left for a later run" />`}
      ${run.counts?.failed > 0 && html`<${Tile} count=${run.counts.failed} word="set aside" bad />`}
    </ul>`}
    <dl class="facts">
      <div><dt>Began</dt><dd><${Time} at=${run.startedAt} /></dd></div>
      <div><dt>Ended</dt><dd><${Time} at=${run.completedAt} none="not yet" /></dd></div>
      <div><dt>Took</dt><dd>${duration(run.durationMs === undefined ? null : run.durationMs / 1000)}</dd></div>
      ${run.readAsOf && html`<div><dt>Read as of</dt><dd><${Time} at=${run.readAsOf} /></dd></div>`}
      ${run.requestedBy && html`<div><dt>Asked for by</dt><dd><${Value} text=${run.requestedBy} /></dd></div>`}
      <div><dt>Run</dt><dd><code>${run.syncId}</code></dd></div>
    </dl>
    ${run.notes?.length > 0 && html`<h2>Notes</h2><ul class="notes">${run.notes.map((note) => html`<li><${Value} text=${note} /></li>`)}</ul>`}
    ${run.failures?.length > 0 && html`<h2>Set aside</h2><ul class="notes">
      ${run.failures.map(([key, reason]) => html`<li><strong><${Value} text=${key} clip=${120} /></strong> <${Value} text=${reason} /></li>`)}</ul>`}
    ${wrote && !run.ofSeveral && html`<${Changes} run=${run} />`}
    ${run.ofSeveral && html`<p class="calm"><a href=${addressOf("overview", "", { q: run.jobId ?? `${setOf(run.service)}/` })}>The runs of its services</a> show what it did to records. Undo and restore are there.</p>`}
    ${!wrote && !run.ofSeveral && run.status !== "InProgress" && html`<p class="calm">${run.dryRun ? `A dry run writes nothing. It counted: ${countsOf(run.counts)}.` : "It changed no record."}</p>`}
  `;
}

function Tile({ count, word, bad = false }) {
  return html`<li class=${bad ? "bad" : ""}><strong>${number(count)}</strong> <span>${word}</span></li>`;
}
