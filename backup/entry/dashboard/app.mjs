// The page: asks for the key where one is needed, says when the server is silent, and shows the view of the address.
import { Actions } from "./actions.mjs";
import { access, api, caller, hasKey, refusal, setKey, silentSince, tryKey } from "./api.mjs";
import { Calendar } from "./calendar.mjs";
import { Charts } from "./charts.mjs";
import { ahead } from "./clock.mjs";
import { Failures } from "./failures.mjs";
import { html } from "./html.mjs";
import { Job, OpenJobs } from "./jobs.mjs";
import { useLive, watchSilence } from "./live.mjs";
import { askOverview, askService, Headline, Members, OLD_MS, Services, titleOf, UNKNOWN_TITLE } from "./overview.mjs";
import { Guarded, Live, Name, Notices, Refusal, Section, useClock, Writing } from "./parts.mjs";
import { addressOf, route } from "./route.mjs";
import { Run } from "./run.mjs";
import { Runs } from "./runs.mjs";
import { useStore } from "./store.mjs";
import { duration, exact, relative, setOf, zoneNow } from "./text.mjs";
import { render } from "./vendor/preact.mjs";
import { useEffect, useId, useState } from "./vendor/hooks.mjs";

const OVERVIEW_SECONDS = 10;
const DAYS_SECONDS = 60;
const PARTS = [["services", "Services"], ["failures", "Failures"], ["jobs", "Running"], ["runs", "Runs"], ["charts", "Charts"], ["calendar", "Nights"], ["actions", "Actions"]];

function App() {
  const { view, name, filters } = useStore(route);
  const is = useStore(access);
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.querySelector("main").focus(); }}>Skip to the content</a>
    <${Top} view=${view} />
    <${Silence} />
    <main id="main" tabindex="-1">
      ${is === "open" && html`<${Guarded} key=${`${view}/${name}`}><${View} view=${view} name=${name} filters=${filters} /><//>`}
      ${is === "refused" && html`<div class="view"><h1 tabindex="-1">You may not look here</h1><${Refusal} error=${refusal.value} />
        <p><button type="button" onClick=${() => (access.value = "tried")}>Try again</button></p></div>`}
      ${is === "tried" && html`<p class="dim" aria-busy="true">Reading …</p>`}
      ${(is === "asked" || is === "wrong") && html`<${KeyGate} wrong=${is === "wrong"} />`}
    </main>
    <footer class="foot dim"><${Clock} /> Libraries of this page: <a href="dashboard/vendor/preact.LICENSE.txt">Preact</a>, ${""}
      <a href="dashboard/vendor/htm.LICENSE.txt">htm</a>, <a href="dashboard/vendor/uplot.LICENSE.txt">uPlot</a>, <a href="dashboard/vendor/oat.LICENSE.txt">Oat</a>.</footer>
    <${Notices} />`;
}

// Of which zone and clock the times are.
function Clock() {
  const by = useStore(ahead);
  return html`Times are those of ${zoneNow()}${by !== 0 && html`, by the server's clock: that of this computer is <strong>${duration(Math.abs(by) / 1000)} ${by > 0 ? "ahead" : "behind"}</strong>`}.`;
}

function View({ view, name, filters }) {
  if (view === "run") return html`<${Run} id=${name} />`;
  if (view === "job") return html`<${Job} id=${name} />`;
  if (view === "service") return html`<${Overview} only=${name} filters=${filters} />`;
  if (view === "overview") return html`<${Overview} filters=${filters} />`;
  return html`<div class="view"><h1 tabindex="-1">There is no such view</h1><p><a href="#/">To the overview</a></p></div>`;
}

function Top({ view }) {
  const asked = useStore(access) !== "open";
  const { name, mayWrite } = useStore(caller);
  const parts = PARTS.filter(([id]) => id !== "actions" || mayWrite);
  return html`<header class="top">
    <a class="brand" href="#/"><img src="dashboard/icon.svg" alt="" width="24" height="24" /> Backup</a>
    ${view === "overview" && !asked && html`<nav aria-label="Parts of the page"><ul>
      ${parts.map(([id, label]) => html`<li key=${id}><button type="button" class="link" onClick=${() => jump(id)}>${label}</button></li>`)}
    </ul></nav>`}
    ${name && !asked && html`<span class="dim who"><${Name} text=${name} />${mayWrite ? "" : " may look only"}</span>`}
    ${hasKey() && !asked && html`<button type="button" class="ghost small" onClick=${forgetKey}>Forget the key</button>`}
  </header>`;
}

function jump(id) {
  const heading = document.getElementById(`${id}-title`);
  heading?.setAttribute("tabindex", "-1");
  heading?.focus({ preventScroll: true });
  heading?.scrollIntoView({ block: "start" });
}

function forgetKey() {
  setKey(null);
  access.value = "asked";
}

// Says that the server is silent since when. What is on the page stays, marked as old.
function Silence() {
  const since = useStore(silentSince);
  useClock();
  return html`<div aria-live="assertive" class="silence-frame">${since !== null && html`<div class="silence" data-test="silence">
    <strong>The server does not answer</strong> since ${exact(since)}. This page tries again every few seconds and goes on by itself. What it shows is from before.
  </div>`}</div>`;
}

function KeyGate({ wrong }) {
  const id = useId();
  const [key, setTyped] = useState("");
  const submit = (event) => {
    event.preventDefault();
    if (key.trim()) setKey(key.trim());
  };
  return html`<form class="gate card" onSubmit=${submit}>
    <h1 tabindex="-1">This app asks for a key</h1>
    ${wrong && html`<div role="alert" data-variant="danger">This key is wrong. Nothing was shown and nothing was changed.</div>`}
    <label for=${id}>Function key</label>
    <input id=${id} type="password" autocomplete="off" spellcheck=${false} autofocus value=${key} aria-describedby=${`${id}-note`} onInput=${(event) => setTyped(event.target.value)} />
    <p id=${`${id}-note`} class="dim">A function key or host key of the app (Azure portal: App keys), or <code>SERVE_KEY</code> on a laptop. It stays in this tab until it is closed, and goes to this server alone.</p>
    <button type="submit" disabled=${!key.trim()}>Open</button>
  </form>`;
}

function Overview({ only, filters }) {
  const [pages, setPages] = useState(1);
  const days = filters.days === "90" ? 90 : 30;
  const find = only ? undefined : filters.find;
  const live = useLive(() => (only ? askService(only) : askOverview({ find, pages })), ["overview", only, find, pages], OVERVIEW_SECONDS);
  const countsDays = !only || (live.data && !live.data.ofSet); // the days of a set's services are counted as the set's
  const rows = live.data?.services ?? [];
  const names = rows.map((row) => row.service);
  const title = titleOf(live);
  useEffect(() => {
    document.title = title;
    const timer = setTimeout(() => (document.title = UNKNOWN_TITLE), OLD_MS); // also where nobody sees the page, so nothing is asked
    return () => {
      clearTimeout(timer);
      document.title = "Backup";
    };
  }, [title, live.at]);
  return html`<div class="view">
    ${only && html`<p><a href="#/">← All services</a>${only.includes("/") && html` · <a href=${addressOf("service", setOf(only))}>${setOf(only)}</a>`}</p><h1 tabindex="-1"><${Name} text=${only} /></h1>`}
    ${!only && (live.data ? html`<${Headline} live=${live} />` : html`<h1 class="hidden" tabindex="-1">Backup</h1>`)}
    <${Services} live=${live} only=${only} filters=${filters} onMore=${() => setPages(pages + 1)} />
    ${rows[0]?.services > 0 && only && html`<${Members} set=${only} filters=${filters} />`}
    <${Failures} service=${only} />
    <${OpenJobs} service=${only} />
    <${Runs} filters=${filters} service=${only} services=${names} />
    ${countsDays && html`<${Days} service=${only} days=${days} />`}
    ${live.data?.ofSet && html`<p class="calm">Changes, durations and nights are those of <a href=${addressOf("service", setOf(only))}>the whole set</a>.</p>`}
    <${Writing}><${Section} id="actions" title="Do now"><${Actions} service=${only} services=${names} /><//><//>
    ${live.at && html`<p class="dim seen">Seen ${relative(live.at)}, ${exact(live.at)}.</p>`}
  </div>`;
}

function Days({ service, days }) {
  const numbers = useLive(() => api.calendar({ service, days }), ["calendar", service, days], DAYS_SECONDS);
  return html`<${Live} live=${numbers}>${({ days: byDay }) => html`<${Charts} rows=${byDay} days=${days} /><${Calendar} rows=${byDay} />`}<//>`;
}

access.listen((is) => is === "tried" && tryKey());
silentSince.listen((since) => since === null && access.value === "tried" && tryKey());
watchSilence();
tryKey();
render(html`<${App} />`, document.getElementById("app"));
