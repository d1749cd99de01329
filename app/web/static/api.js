// Asks the worker's API. What it has said before is asked for with If-None-Match: where that is still so, it says 304.

const KEPT = 60;
const answers = new Map();

/** Not answered as hoped. status 0: nobody answered. problem: what the worker says of it (RFC 9457). */
export class ApiError extends Error {
  constructor(status, problem) {
    super(problem?.detail ?? `status ${status}`);
    this.status = status;
    this.problem = problem ?? {};
  }
}

/** {data, changed} of a GET. Throws ApiError. */
export async function ask(path, signal) {
  const before = answers.get(path);
  const headers = { accept: "application/json" };
  if (before) headers["if-none-match"] = before.etag;
  let response;
  let data;
  try {
    // The browser's own cache is left out: this is one.
    response = await fetch(path, { headers, cache: "no-store", signal: limited(signal) });
    data = response.status === 304 ? before.data : await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0);
  }
  if (response.status === 304) return { data, changed: false };
  if (!response.ok) throw new ApiError(response.status, data);
  const etag = response.headers.get("etag");
  answers.delete(path);
  if (etag) answers.set(path, { etag, data });
  if (answers.size > KEPT) answers.delete(answers.keys().next().value);
  return { data, changed: true };
}

function limited(signal) {
  const late = AbortSignal.timeout(10_000);
  return signal ? AbortSignal.any([signal, late]) : late;
}
