// Requests of the tests: one in JSON a line, answered in one JSON line each, in order. `tell` says what of an error.
import { createInterface } from "node:readline";

export async function serve(answers, tell = (error) => error?.stack ?? error) {
  for await (const line of createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    let answer;
    try {
      answer = { ok: await answers[request.ask](request) };
    } catch (error) {
      answer = { error: String(tell(error)) };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
}
