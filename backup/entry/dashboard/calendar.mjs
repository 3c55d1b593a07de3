// Days as squares: the share of the runs that the schedule wanted and that were made.
import { html } from "./html.mjs";
import { Section } from "./parts.mjs";
import { many, number } from "./text.mjs";

const WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

// How a night was: nothing due, all made, most, some, none.
function levelOf({ runsDue, runsMade }) {
  if (!runsDue) return "none-due";
  const share = runsMade / runsDue;
  return share >= 1 ? "all" : share >= 0.8 ? "most" : share > 0 ? "some" : "none";
}

export function Calendar({ rows }) {
  const due = rows.reduce((sum, row) => sum + (row.runsDue ?? 0), 0);
  const made = rows.reduce((sum, row) => sum + Math.min(row.runsMade ?? 0, row.runsDue ?? 0), 0);
  const sentence = due ? `${number(made)} of ${many(due, "run")} that the schedule wanted ${made === 1 ? "was" : "were"} made: ${((100 * made) / due).toFixed(1)} %.` : "The schedule wanted no run in these days.";
  const first = rows.length ? (new Date(`${rows[0].date}T00:00:00Z`).getUTCDay() + 6) % 7 : 0;
  const days = [...Array(first).fill(null), ...rows];
  const weeks = Array.from({ length: Math.ceil(days.length / 7) }, (_, week) => Array.from({ length: 7 }, (__, day) => days[week * 7 + day] ?? null));
  return html`<${Section} id="calendar" title="Nights" note=${`${sentence} Days are those of UTC.`}>
    <div class="table-frame" tabindex="0" role="region" aria-label="Calendar of nights">
      <table class="calendar"><thead><tr><th scope="col">Week of</th>${WEEKDAYS.map((day) => html`<th scope="col">${day}</th>`)}</tr></thead>
        <tbody>${weeks.map((week) => html`<tr><th scope="row">${week.find(Boolean)?.date.slice(5)}</th>
          ${week.map((row) => (row ? html`<${Night} key=${row.date} row=${row} />` : html`<td></td>`))}</tr>`)}</tbody>
      </table>
    </div>
    <ul class="legend nights">
      ${[["all", "all made"], ["most", "most"], ["some", "some"], ["none", "none made"], ["none-due", "none due"]].map(([level, word]) => html`<li><span class="night" data-level=${level} aria-hidden="true"></span>${word}</li>`)}
    </ul>
  <//>`;
}

function Night({ row }) {
  const level = levelOf(row);
  const words = row.runsDue ? `${row.date}: ${number(row.runsMade)} of ${many(row.runsDue, "run")} made${row.failed ? `, ${number(row.failed)} failed` : ""}` : `${row.date}: no run due`;
  const share = row.runsDue ? Math.floor((100 * Math.min(row.runsMade, row.runsDue)) / row.runsDue) : null;
  return html`<td><span class="night" data-level=${level} title=${words}><span aria-hidden="true">${share === null ? "·" : share}</span><span class="hidden">${words}</span></span></td>`;
}
