// One sentence that says whether last night is safe, then a row for each service; those that are not safe come first.
import { ServiceActions } from "./actions.mjs";
import { api } from "./api.mjs";
import { now } from "./clock.mjs";
import { html } from "./html.mjs";
import { useLive } from "./live.mjs";
import { Badge, Live, Name, Section, Table, Time, useClock } from "./parts.mjs";
import { addressOf } from "./route.mjs";
import { Find } from "./runs.mjs";
import { duration, many, number, setOf } from "./text.mjs";
import { useState } from "./vendor/hooks.mjs";

const PAGE = 10;
const MEMBERS_SECONDS = 10;
const FEW = 8;
const ALIKE = 200; // names that have the same text
const NAMED = 3;
const AT_MOST = 200; // services that one request asks for
export const OLD_MS = 90_000; // of an answer after which another should have come: nobody knows what it says any more
export const UNKNOWN_TITLE = "(?) not known – Backup";
const LABELS = { Never: "Never backed up", Overdue: "Overdue", Failed: "Last run failed", Differs: "Copy differs", Safe: "Safe" };

// The first pages of services, or of those of a set, those that are not safe first.
export async function askOverview({ set, find, pages }) {
  let cursor;
  let services = [];
  let first;
  while (services.length < pages * PAGE) {
    const answer = await api.overview({ set, q: find, limit: Math.min(AT_MOST, pages * PAGE - services.length), cursor });
    first ??= answer;
    services = [...services, ...answer.services];
    cursor = answer.cursor;
    if (cursor === null || answer.services.length === 0) break;
  }
  return { ...first, services, cursor };
}

// The row of one service: of the settings, a set, or one of a set (`ofSet`).
export async function askService(name) {
  const own = await rowOf({ q: name }, name);
  if (own.services.length > 0 || !name.includes("/")) return own;
  try {
    return { ...(await rowOf({ set: setOf(name), q: name }, name)), ofSet: true };
  } catch (error) {
    if (error.status !== 404) throw error;
    return own;
  }
}

async function rowOf(query, name) {
  const answer = await api.overview({ ...query, limit: ALIKE });
  const services = answer.services.filter((row) => row.service.toLowerCase() === name.toLowerCase());
  return { ...answer, services, cursor: null };
}

const stateOf = (row) => (row.overdue && !row.lastSuccess ? "Never" : row.state);

// What the totals say of all services: "unknown" if they do not add up.
function kindOf({ services, overdue, failed, differs, safe } = {}) {
  if (overdue + failed + differs + safe !== services) return "unknown";
  return services === 0 ? "none" : overdue + differs > 0 ? "danger" : failed > 0 ? "warning" : "safe";
}

// The page's title. Nothing is known while the app does not answer.
export function titleOf({ data, error }) {
  if (!data && !error) return "Backup";
  if (error || kindOf(data.totals) === "unknown") return UNKNOWN_TITLE;
  const unsafe = data.totals.services - data.totals.safe;
  return unsafe ? `(${unsafe}) not safe – Backup` : "Backup: safe";
}

// What stands at the top: the one thing that somebody wants to know who opens the page at night.
export function Headline({ live: { data: overview, error, at } }) {
  useClock();
  const { totals } = overview;
  const told = kindOf(totals);
  const kind = error || now() - at > OLD_MS ? "unknown" : told;
  return html`<div class="headline" data-kind=${kind}>
    <span class="headline-sign" aria-hidden="true">${{ none: "–", safe: "✓", danger: "✕", warning: "!", unknown: "?" }[kind]}</span>
    <div>
      <h1 tabindex="-1">${sentenceOf(kind, totals)}</h1>
      <p>${kind !== "unknown" ? detailOf(kind, overview) : told !== "unknown" ? html`The last answer came <${Time} at=${at} inline />. It was: ${sentenceOf(told, totals)}` : "The answer of the app cannot be understood."}</p>
    </div>
  </div>`;
}

function sentenceOf(kind, { services, overdue, failed, differs }) {
  if (kind === "unknown") return "Whether the services are safe is not known now.";
  if (kind === "none") return "No service is configured yet.";
  if (kind === "safe") return services === 1 ? "The service is safe." : `All ${number(services)} services are safe.`;
  if (kind === "warning") return `The last run of ${many(failed, "service")} failed.`;
  return `${number(overdue + differs)} of ${many(services, "service")} ${overdue + differs === 1 ? "is" : "are"} not safe.`;
}

function detailOf(kind, { services, totals }) {
  const next = services.map((row) => row.nextOccurrence).filter(Boolean).sort()[0];
  const nextRun = next ? html` The next run is due <${Time} at=${next} inline />.` : " No schedule is on: nothing runs by itself.";
  if (kind === "none") return "The settings name a source and a backup for each service.";
  if (kind === "safe") {
    const all = services.length === totals.services;
    const oldest = services.map((row) => row.lastSuccess?.at).filter(Boolean).sort()[0];
    return html`Every last success is recent enough${all && oldest ? html`; the oldest was <${Time} at=${oldest} inline />.` : "."}${nextRun}`;
  }
  const told = services.filter((row) => (kind === "warning" ? row.state === "Failed" : row.state === "Overdue" || row.state === "Differs"));
  const others = (kind === "warning" ? totals.failed : totals.overdue + totals.differs) - Math.min(told.length, NAMED);
  const names = told.slice(0, NAMED).map((row, index) => html`${index > 0 && ", "}<strong><${Name} text=${row.service} /></strong> (${LABELS[stateOf(row)].toLowerCase()})`);
  const rest = kind === "warning" ? " The last success is still recent enough." : totals.failed > 0 && ` The last run of ${many(totals.failed, "other service")} failed.`;
  const listed = told.length > 0 && html`${names}${others > 0 && ` and ${number(others)} more`}.`; // a search may have left none
  return html`${listed}${rest}${nextRun}`;
}

// The services of a set, as far as they have had a run.
export function Members({ set, filters }) {
  const [pages, setPages] = useState(1);
  const live = useLive(() => askOverview({ set, find: filters.find, pages }), ["members", set, filters.find, pages], MEMBERS_SECONDS);
  return html`<${Services} live=${live} id="members" title="Its services" note=${live.data && toldOf(live.data.totals)} filters=${filters} onMore=${() => setPages(pages + 1)} />`;
}

const toldOf = ({ services, overdue, failed, differs, safe }) => {
  const words = [[overdue, "overdue"], [failed, "failed last"], [differs, "differing"], [safe, "safe"]];
  return `${many(services, "service")}: ${words.filter(([count]) => count).map(([count, word]) => `${number(count)} ${word}`).join(", ")}.`;
};

export function Services({ live, only, filters, onMore, id = "services", title = only ? "State" : "Services", note = "A service is overdue when its last success is too old, also when nothing has failed." }) {
  const total = live.data?.totals.services ?? 0;
  return html`<${Section} id=${id} title=${title} note=${note}
      aside=${!only && total > FEW && html`<${Find} name="find" label="Find a service" value=${filters.find} />`}>
    <${Live} live=${live} empty=${(overview) => overview.services.length === 0 && html`<p class="calm">${total || only ? "No service has this name." : "No service is configured."}</p>`}>
      ${(overview) => html`
        <${Table} label=${title} head=${["Service", "Last success", "Next run", "Proven equal", "Restore drill", html`<span class="hidden">Actions</span>`]}>
          ${overview.services.map((row) => html`<${Row} key=${row.service} row=${row} />`)}
        <//>
        ${overview.cursor && html`<button type="button" class="outline small" onClick=${onMore}>Show more services</button>`}`}
    <//>
  <//>`;
}

function Row({ row }) {
  const state = stateOf(row);
  return html`<tr data-state=${state}>
    <th scope="row"><a href=${addressOf("service", row.service)}><${Name} text=${row.service} /></a> <${Badge} state=${state} label=${LABELS[state]} />
      ${row.services > 0 && html`<small class="dim">a set of ${number(row.services)}</small>`}
      ${row.job && html`<a class="at-work" href=${addressOf("job", row.job.jobId)}>${row.job.verb} at ${row.job.progress} %</a>`}</th>
    <td data-label="Last success"><div><${Age} row=${row} /></div></td>
    <td data-label="Next run"><${Time} at=${row.nextOccurrence} none="not scheduled" /></td>
    <td data-label="Proven equal"><div><${Proof} row=${row} /></div></td>
    <td data-label="Restore drill"><div><${Drill} drill=${row.lastRestoreDrill} /></div></td>
    <td class="row-actions"><${ServiceActions} service=${row.service} /></td>
  </tr>`;
}

// The age beside what it may be, as a bar that is full when the service is overdue.
function Age({ row }) {
  const { lastSuccess, lastSuccessAgeSeconds: told, allowedAgeSeconds: allowed } = row;
  const age = lastSuccess && told !== null ? (now() - new Date(lastSuccess.at)) / 1000 : null;
  return html`<${Time} at=${lastSuccess?.at} />
    ${allowed && html`<span class="age">
      <meter min="0" max=${allowed} low=${allowed * 0.9} high=${allowed * 0.999} optimum="0" value=${age === null ? allowed : Math.min(age, allowed)} aria-label="Age of the last success against its allowed age"></meter>
      <small class="dim">allowed ${duration(allowed)}</small>
    </span>`}`;
}

// What was proven last: that numbers and versions are equal, and when whole contents were.
function Proof({ row: { records, versionsProven, contentsProven } }) {
  const newest = [versionsProven, contentsProven].filter(Boolean).sort((a, b) => new Date(b.at) - new Date(a.at))[0];
  if (!newest) return html`<span class="dim">not yet</span>`;
  const counted = newest.records ?? records;
  const whole = contentsProven && contentsProven.syncId === newest.syncId;
  return html`<span>${counted !== null && counted !== undefined ? many(counted, "record") : "Numbers"}, ${whole ? "contents" : "versions"}</span>
    <${Time} at=${newest.at} />
    ${contentsProven && !whole && html`<small class="dim">contents <${Time} at=${contentsProven.at} inline /></small>`}`;
}

function Drill({ drill }) {
  return html`<${Time} at=${drill?.at} />${drill && drill.verified === false && html`<${Badge} state="Differs" label="differed" />`}`;
}
