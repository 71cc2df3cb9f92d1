// Buys an activation code from holdpayd and prints it: node code.js COUNTRY SERVICE KEY
//
// The socket is $HOLDPAY_SOCKET. KEY names the purchase: whoever asks again with it gets the same order, never a second.
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import protobuf from "protobufjs";

const PROTOS = process.env.PROTOS ?? path.join(import.meta.dirname, "../../../protos");
const SOCKET = process.env.HOLDPAY_SOCKET ?? "/run/holdpay/holdpay.sock";

// What the program ends with, besides a code.
class Failure extends Error {}

// What holdpayd says of a refusal, for programs.
const rpc = protobuf.parse(`
  syntax = "proto3";
  message Status { repeated Any details = 3; }
  message Any { string type_url = 1; bytes value = 2; }
  message ErrorInfo { string reason = 1; map<string, string> metadata = 3; }
`).root;
const decode = (type, bytes) => rpc.lookupType(type).decode(bytes);

function errorInfo(error) {
  const [status] = error.metadata?.get("grpc-status-details-bin") ?? [];
  const details = status ? decode("Status", status).details : [];
  const info = details.find((any) => any.typeUrl.endsWith("/google.rpc.ErrorInfo"));
  return info && decode("ErrorInfo", info.value);
}

let told; // of a daemon that does not answer

// Resolves with the code, or with nothing if the stream was lost before it came.
function follow(holdpay, request) {
  return new Promise((resolve, reject) => {
    let number;
    const stream = holdpay.submit(request);
    stream.on("data", ({ updates }) => {
      const now = updates.at(-1).request; // the latest has all that those before it have
      const texts = (kind) => (now?.items ?? []).filter((item) => item.kind === kind).map((item) => item.text);
      const newest = texts("ITEM_KIND_NUMBER").at(-1); // of several the last counts, and of codes the first
      if (newest && newest !== number) console.error("the number is", (number = newest));
      const [code] = texts("ITEM_KIND_CODE");
      if (code) resolve(code);
      else if (now?.terminal) reject(new Failure(`${now.end}: ${now.reason}`));
    });
    stream.on("end", () => resolve());
    stream.on("error", (error) => {
      const info = errorInfo(error);
      if (info) reject(new Failure(`${info.reason} ${JSON.stringify(info.metadata)}: ${error.details}`));
      else if (error.code !== grpc.status.UNAVAILABLE) reject(error);
      else {
        // No daemon answered, and nobody refused anything. Each trouble is told once.
        if (error.details !== told) console.error("holdpayd does not answer, it is asked again:", (told = error.details));
        resolve();
      }
    });
  });
}

async function main([country, service, key]) {
  if (!key) throw new Failure("usage: node code.js COUNTRY SERVICE KEY");
  const file = loader.loadSync("holdpay/v1/holdpay.proto", { includeDirs: [PROTOS], longs: String, enums: String });
  const { Holdpay } = grpc.loadPackageDefinition(file).holdpay.v1;
  // The kernel says who may open the socket; there is nothing to encrypt.
  const holdpay = new Holdpay(`unix:${SOCKET}`, grpc.credentials.createInsecure());
  const request = { idempotencyKey: key, code: { countries: [country], service } };
  // A connection that is lost, or a daemon that restarts, changes nothing about the order: ask again with the same key.
  for (const deadline = Date.now() + 25 * 60_000; Date.now() < deadline; await sleep(1_000)) {
    const code = await follow(holdpay, request);
    if (code) return code;
  }
  throw new Failure("no code after 25 minutes; an order that was taken goes on: run this again with the same key");
}

try {
  console.log(await main(process.argv.slice(2)));
  process.exit(0);
} catch (error) {
  console.error(error instanceof Failure ? error.message : error);
  process.exit(1);
}
