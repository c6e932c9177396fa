// Embeds texts over longembed.v1: one call, a stream, and an error with its details.
// README.md in the parent folder says how to run this example.
import { fileURLToPath } from 'node:url';

import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

// The window vectors of a long text exceed the default limit of 4 MiB.
const MAX_RECEIVE_BYTES = 64 << 20;

const protos = protoLoader.loadSync(
  ['longembed/v1/embedding.proto', 'google/rpc/status.proto', 'google/rpc/error_details.proto'],
  { includeDirs: [fileURLToPath(new URL('../../../proto', import.meta.url))], keepCase: true, enums: String, oneofs: true },
);
const { longembed } = grpc.loadPackageDefinition(protos);

const client = new longembed.v1.EmbeddingService(
  process.env.LONGEMBED_SERVER ?? '127.0.0.1:50051',
  grpc.credentials.createInsecure(),
  { 'grpc.max_receive_message_length': MAX_RECEIVE_BYTES },
);
const deadline = () => ({ deadline: Date.now() + 60_000 });

function embed(request) {
  return new Promise((resolve, reject) => {
    client.Embed(request, deadline(), (error, response) => (error ? reject(error) : resolve(response)));
  });
}

// Returns the google.rpc details of an error, by type: {ErrorInfo: {reason, ...}, BadRequest: {field_violations, ...}}.
function detailsOf(error) {
  const [bytes] = error.metadata.get('grpc-status-details-bin');
  const details = {};
  if (bytes === undefined) return details;
  for (const any of protos['google.rpc.Status'].deserialize(bytes).details) {
    const type = any.type_url.split('/').pop();
    if (type in protos) details[type.split('.').pop()] = protos[type].deserialize(any.value);
  }
  return details;
}

async function embedOnce() {
  const response = await embed({ options: { prompt_name: 'query' }, inputs: [{ text: 'how long is the Nile?' }] });
  const [result] = response.results;
  console.log(`Embed: ${response.model}, ${result.embeddings[0].values.length} dimensions, ${result.tokens} tokens`);
}

// The first message holds the options. Answers arrive as soon as they are ready, each with the id of its text.
async function embedStream() {
  const stream = client.EmbedStream(deadline());
  const options = { prompt_name: 'passage' };
  stream.write({ options, id: 'nile', input: { text: 'The Nile is about 6,650 km long.' } });
  stream.write({ id: 'amazon', input: { text: 'The Amazon is about 6,400 km long.' } });
  stream.end();
  for await (const { id, result } of stream) {
    if (result.error) console.log(`EmbedStream: ${id} failed: ${result.error.message}`);
    else console.log(`EmbedStream: ${id}, ${result.embeddings[0].values.length} dimensions`);
  }
}

// A text longer than the model's window is refused, unless the request sets `extension` or `truncate`.
async function refused() {
  const text = 'The Nile is about 6,650 km long. '.repeat(100);
  try {
    await embed({ inputs: [{ text }] });
  } catch (error) {
    const { ErrorInfo, BadRequest } = detailsOf(error);
    const [violation] = BadRequest.field_violations;
    console.log(`Refused: ${grpc.status[error.code]}, reason ${ErrorInfo.reason}, field ${violation.field}: ${error.details}`);
    return;
  }
  throw new Error('the text was not refused');
}

await embedOnce();
await embedStream();
await refused();
client.close();
