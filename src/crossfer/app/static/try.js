import { ask } from "./app.js";
import { answersFrom } from "./given.js";

const MOST_BYTES = 50_000_000; // as the server says, which ends the connection at more

answersFrom((blob, cropped) => {
  if (blob.size > MOST_BYTES) throw new Error(`That picture is larger than ${MOST_BYTES / 1e6} MB.`);
  return ask(`/try/look?cropped=${cropped ? 1 : 0}`, { method: "POST", body: blob });
});
