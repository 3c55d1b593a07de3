// Runs, newest first, by service, verb, state, time and text. The filters stand in the address.
import { api } from "./api.mjs";
import { html } from "./html.mjs";
import { useLive } from "./live.mjs";
import { Badge, Live, Name, Section, Table, Time, Value, Work } from "./parts.mjs";
import { sayRefused } from "./queued.mjs";
import { addressOf, setFilters } from "./route.mjs";
import { countsOf } from "./jobs.mjs";
import { duration, many, ZONE } from "./text.mjs";
import { useEffect, useId, useState } from "./vendor/hooks.mjs";

const PAGE = 12;
const TYPING_MS = 350;
const VERBS = ["sync", "verify", "drill", "undo", "restore"];
const STATES = ["InProgress", "Completed", "Failed"];

export function Runs({ filters, service, services = [] }) {
  const query = {
    service: service ?? filters.service, verb: filters.verb, status: filters.status, q: filters.q,
    from: moment(filters.from), to: moment(filters.to),
  };
  const live = useLive(() => api.runs({ ...query, limit: PAGE }), ["runs", query], 10);
  const [older, setOlder] = useState({ of: null, runs: [], cursor: null });
  const of = JSON.stringify(query);
  const rest = older.of === of ? older : { runs: [], cursor: live.data?.cursor ?? null };
  const more = async () => {
    try {
      const page = await api.runs({ ...query, limit: PAGE, cursor: rest.cursor });
      setOlder({ of, runs: [...rest.runs, ...page.runs], cursor: page.cursor });
    } catch (error) {
      sayRefused(error);
    }
  };
  return html`<${Section} id="runs" title="Runs" note=${`Times are those of ${ZONE}.`}>
    <${Filters} filters=${filters} service=${service} services=${services} />
    <${Live} live=${live} empty=${(data) => data.runs.length === 0 && data.cursor === null && html`<p class="calm">${Object.values(query).some(Boolean) ? "No run is like that." : "Nothing has run yet."}</p>`}>
      ${({ runs }) => {
        const known = new Set(runs.map((run) => run.syncId));
        const all = [...runs, ...rest.runs.filter((run) => !known.has(run.syncId))];
        return html`
          <${Table} label="Runs" head=${["Service", "What", "State", "Began", "Took", "Records"]}>
            ${all.map((run) => html`<${Row} key=${run.syncId} run=${run} />`)}
          <//>
          ${rest.cursor && html`<${Work} class="outline small" onWork=${more}>Show older runs<//>`}
          <p class="hidden" role="status">${many(all.length, "run")} shown</p>`;
      }}
    <//>
  <//>`;
}

function Row({ run }) {
  return html`<tr>
    <th scope="row"><a href=${addressOf("run", run.syncId)}><${Name} text=${run.service} /></a></th>
    <td data-label="What">${whatOf(run)}</td>
    <td data-label="State"><${Badge} state=${run.status} />${run.error && html`<small class="row-error"><${Value} text=${run.error} clip=${120} /></small>`}</td>
    <td data-label="Began"><${Time} at=${run.startedAt} /></td>
    <td data-label="Took">${run.status === "InProgress" ? `${run.percent ?? 0} %` : duration(run.durationMs === undefined ? null : run.durationMs / 1000)}</td>
    <td data-label="Records">${compares(run) ? { equal: "nothing differs", differs: html`<${Badge} state="Differs" />`, unknown: "–" }[comparedOf(run)] : countsOf(run.counts)}</td>
  </tr>`;
}

const compares = ({ verb }) => verb === "verify" || verb === "drill";

// What a verify or a drill has seen. Another run, and one that has not come to its end, says nothing of that.
export function comparedOf(run) {
  if (!compares(run) || run.status !== "Completed") return "unknown";
  return run.verified ? "equal" : "differs";
}

export function whatOf(run) {
  const words = [run.dryRun ? `dry run of ${run.verb}` : run.forced ? `forced ${run.verb}` : run.verb];
  if (run.trigger) words.push(`by ${run.requestedBy ?? run.trigger}`);
  return words.join(" · ");
}

function Filters({ filters, service, services }) {
  return html`<form class="filters" role="search" aria-label="Filter the runs" onSubmit=${(event) => event.preventDefault()}>
    ${!service && html`<${Find} name="service" label="Service" value=${filters.service} suggestions=${services} />`}
    <${Pick} name="verb" label="Verb" value=${filters.verb} options=${VERBS} />
    <${Pick} name="status" label="State" value=${filters.status} options=${STATES} />
    <${Find} name="q" label="Text" type="search" value=${filters.q} placeholder="error, id, note" />
    <${Find} name="from" label="From" type="datetime-local" value=${filters.from} />
    <${Find} name="to" label="To" type="datetime-local" value=${filters.to} />
    <button type="button" class="ghost small" onClick=${() => setFilters({ service: "", verb: "", status: "", q: "", from: "", to: "" })}>Clear</button>
  </form>`;
}

function Pick({ name, label, value = "", options }) {
  const id = useId();
  const listed = value && !options.includes(value) ? [value, ...options] : options;
  return html`<div class="filter"><label for=${id}>${label}</label>
    <select id=${id} value=${value} onChange=${(event) => setFilters({ [name]: event.target.value })}>
      <option value="">all</option>
      ${listed.map((option) => html`<option key=${option} value=${option}>${option}</option>`)}
    </select></div>`;
}

// The address follows once somebody stops typing.
export function Find({ name, label, type = "search", value = "", placeholder, suggestions = [] }) {
  const id = useId();
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  useEffect(() => {
    if (text === value) return undefined;
    const timer = setTimeout(() => setFilters({ [name]: text }, false), TYPING_MS);
    return () => clearTimeout(timer);
  }, [text]);
  return html`<div class="filter"><label for=${id}>${label}</label>
    <input id=${id} type=${type} value=${text} placeholder=${placeholder} list=${suggestions.length ? `${id}-list` : undefined} onInput=${(event) => setText(event.target.value)} />
    ${suggestions.length > 0 && html`<datalist id=${`${id}-list`}>${suggestions.map((each) => html`<option key=${each} value=${each}></option>`)}</datalist>`}</div>`;
}

// What was typed as a local time, as the API takes it.
function moment(local) {
  const date = local ? new Date(local) : null;
  return date && !Number.isNaN(date.getTime()) ? date.toISOString() : undefined;
}
