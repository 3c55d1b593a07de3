// What is done to jobs by a click: retried, deleted, asked to stop. Says afterwards what came of it.
import { api } from "./api.mjs";
import { refresh } from "./live.mjs";
import { say } from "./parts.mjs";
import { addressOf } from "./route.mjs";
import { many } from "./text.mjs";

export async function retryJob(id, service) {
  try {
    const { jobId } = await api.retry(id);
    say(`The job of ${service} is queued again.`, { link: addressOf("job", jobId) });
  } catch (error) {
    sayRefused(error);
  }
  refresh();
}

export async function removeJob(id, service, runs) {
  try {
    await api.remove(id);
    say(runs ? `The job of ${service} was asked to stop; it does at its next batch.` : `The job of ${service} was deleted.`);
  } catch (error) {
    sayRefused(error);
  }
  refresh();
}

// Retries or deletes many jobs, and says how many, and why not the others.
export async function toMany(action, ids) {
  const word = action === "retry" ? "queued again" : "deleted or asked to stop";
  try {
    const { done, refused, jobs } = await api.toJobs(action, ids);
    if (done) say(`${many(done, "job")} ${done === 1 ? "was" : "were"} ${word}.`);
    const reasons = [...new Set(jobs.filter((job) => job.status >= 300).map((job) => job.message))];
    if (refused) say(`${many(refused, "job")} ${refused === 1 ? "was" : "were"} not ${word}: ${reasons.join(" ")}`, { bad: true });
  } catch (error) {
    sayRefused(error);
  }
  refresh();
}

export function sayRefused(error) {
  say([error.message, error.hint].filter(Boolean).join(" "), { bad: true });
}
