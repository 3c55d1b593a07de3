// Changed records by day, and durations, over 30 or 90 days. The numbers stand in a table too, for whoever sees no chart.
import { html } from "./html.mjs";
import { Section, Table } from "./parts.mjs";
import { setFilters } from "./route.mjs";
import { duration, number } from "./text.mjs";
import uPlot from "./vendor/uplot.mjs";
import { useEffect, useRef } from "./vendor/hooks.mjs";

const HEIGHT = 200;
const AXIS_FONT = "12px system-ui";
const CHANGES = [["inserted", "Inserted", "--chart-1"], ["updated", "Updated", "--chart-2"], ["deleted", "Deleted", "--chart-3"]];
const DURATIONS = [["medianDurationMs", "Median", "--chart-1"], ["p95DurationMs", "95 of 100 at most", "--chart-2"]];

export function DaysChoice({ days }) {
  return html`<div class="tabs" role="group" aria-label="How many days">
    ${[30, 90].map((many) => html`<button type="button" key=${many} class="small ${days === many ? "" : "outline"}" aria-pressed=${days === many}
      onClick=${() => setFilters({ days: many === 30 ? "" : many }, false)}>${many} days</button>`)}
  </div>`;
}

export function Charts({ rows, days }) {
  const times = rows.map((row) => Date.parse(`${row.date}T00:00:00Z`) / 1000);
  return html`<${Section} id="charts" title="Changes and durations" note="By day of UTC." aside=${html`<${DaysChoice} days=${days} />`}>
    <div class="charts">
      <figure><figcaption>Changed records</figcaption>
        <${Chart} times=${times} lines=${CHANGES.map(([name, label, colour]) => ({ label, colour, values: rows.map((row) => row[name] ?? 0) }))} write=${number} /></figure>
      <figure><figcaption>Duration of a sync</figcaption>
        <${Chart} times=${times} lines=${DURATIONS.map(([name, label, colour]) => ({ label, colour, values: rows.map((row) => seconds(row[name])) }))} write=${duration} /></figure>
    </div>
    <details><summary>The same as a table</summary>
      <${Table} label="Changes and durations by day" head=${["Day", ...CHANGES.map((line) => line[1]), ...DURATIONS.map((line) => line[1])]}>
        ${[...rows].reverse().filter((row) => row.runs).map((row) => html`<tr key=${row.date}><th scope="row">${row.date}</th>
          ${CHANGES.map(([name, label]) => html`<td data-label=${label}>${number(row[name] ?? 0)}</td>`)}${DURATIONS.map(([name, label]) => html`<td data-label=${label}>${duration(seconds(row[name]))}</td>`)}</tr>`)}
      <//>
    </details>
  <//>`;
}

const seconds = (milliseconds) => (milliseconds === null || milliseconds === undefined ? null : milliseconds / 1000);

function Chart({ times, lines, write }) {
  const frame = useRef();
  const of = JSON.stringify([times, lines]);
  useEffect(() => {
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    let plot;
    const draw = () => {
      plot?.destroy();
      plot = new uPlot(optionsOf(frame.current, lines, write), [times, ...lines.map((line) => line.values)], frame.current);
    };
    draw();
    const watcher = new ResizeObserver(([entry]) => plot.setSize({ width: Math.max(160, Math.floor(entry.contentRect.width)), height: HEIGHT }));
    watcher.observe(frame.current);
    scheme.addEventListener("change", draw);
    return () => {
      scheme.removeEventListener("change", draw);
      watcher.disconnect();
      plot.destroy();
    };
  }, [of]);
  return html`<div class="chart" ref=${frame} aria-hidden="true"></div>
    <ul class="legend" aria-hidden="true">${lines.map((line) => html`<li class=${line.colour.slice(2)}>${line.label}</li>`)}</ul>`;
}

// As wide as the longest label: "10,000,000", "2 h 46 min".
function widthOf(frame, labels) {
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = AXIS_FONT;
  const widest = Math.max(0, ...(labels ?? []).map((label) => pen.measureText(label).width));
  return Math.min(frame.clientWidth / 2, Math.ceil(widest) + 12);
}

function optionsOf(frame, lines, write) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const ink = getComputedStyle(frame).color;
  const axis = { stroke: ink, font: AXIS_FONT, grid: { stroke: colour("--chart-grid"), width: 1 }, ticks: { show: false } };
  return {
    width: Math.max(160, frame.clientWidth),
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    tzDate: (time) => uPlot.tzDate(new Date(time * 1000), "UTC"),
    scales: { y: { range: (_, __, highest) => [0, Math.max(1e-9, highest || 1) * 1.05] } },
    axes: [{ ...axis, space: 70, size: 28, values: (_, ticks) => ticks.map((time) => new Date(time * 1000).toISOString().slice(5, 10)) }, { ...axis, size: (_, labels) => widthOf(frame, labels), values: (_, ticks) => ticks.map((tick) => write(tick)) }],
    series: [{}, ...lines.map((line) => ({ label: line.label, stroke: colour(line.colour), width: 2, spanGaps: true, points: { show: true, size: 4 } }))],
  };
}
