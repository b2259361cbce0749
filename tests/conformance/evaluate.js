// Evaluates JSONata by its reference implementation. Standard input: a JSON list of [expression, bindings].
// Standard output: a JSON list of {"value": ...}, or {} where there is none, whether undefined or an error.
const jsonata = require("jsonata");

async function evaluated([expression, bindings]) {
  try {
    const compiled = jsonata(expression);
    compiled.registerFunction("parse", (text) => JSON.parse(text)); // Step Functions' own
    const value = await compiled.evaluate(undefined, bindings);
    return value === undefined ? {} : { value };
  } catch {
    return {};
  }
}

async function main() {
  let given = "";
  for await (const part of process.stdin) given += part;
  const found = [];
  for (const asked of JSON.parse(given)) found.push(await evaluated(asked));
  process.stdout.write(JSON.stringify(found));
}

main();
