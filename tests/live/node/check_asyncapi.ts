// Checks the AsyncAPI document that comes on stdin: with AsyncAPI's own parser, and each example with its schema.
import { readFileSync } from 'node:fs';
import { Parser } from '@asyncapi/parser';
import Ajv from 'ajv';

type Message = { payload: object; examples?: { payload: unknown }[] };

async function faults(text: string): Promise<string[]> {
  const { diagnostics } = await new Parser().parse(text);
  const found = diagnostics.map(({ message, path }) => `${path.join('.')}: ${message}`);
  const { components } = JSON.parse(text) as { components: { messages: Record<string, Message> } };
  const ajv = new Ajv({ strict: false, validateFormats: false });
  for (const [name, message] of Object.entries(components.messages)) {
    const right = ajv.compile({ components, ...message.payload });
    for (const example of message.examples ?? []) {
      if (!right(example.payload)) found.push(`${name}: ${ajv.errorsText(right.errors)}`);
    }
  }
  return found;
}

faults(readFileSync(0, 'utf-8')).then((found) => console.log(JSON.stringify(found)));
