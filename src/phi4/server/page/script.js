"use strict";
// A chat with one model. The conversation lives in this page and nowhere else.

const $ = (id) => document.getElementById(id);
const READABLE_SOUNDS = ["audio/wav", "audio/x-wav", "audio/wave", "audio/flac", "audio/x-flac", "audio/ogg", "audio/mpeg"];
const SAMPLE_RATE_HZ = 16000;

let messages = [];
let attachments = [];
let running = null; // what stops the answer that is being written
let recorder = null;
let isAsking = false; // for the microphone: a second one would never be let go

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function headers() {
  // A header has bytes: those of UTF-8, which the server compares.
  const key = String.fromCharCode(...new TextEncoder().encode($("key").value));
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
}

// Media

function asDataUri(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

// The server reads wav, flac, ogg and mp3; what only the browser can read becomes wav.
async function asReadableSound(blob) {
  if (READABLE_SOUNDS.includes(blob.type.split(";")[0])) return blob;
  const context = new AudioContext();
  const decoded = await context.decodeAudioData(await blob.arrayBuffer());
  await context.close();
  const length = Math.max(1, Math.ceil(decoded.duration * SAMPLE_RATE_HZ));
  const offline = new OfflineAudioContext(1, length, SAMPLE_RATE_HZ);
  const source = offline.createBufferSource();
  source.buffer = decoded;
  source.connect(offline.destination);
  source.start();
  return asWav((await offline.startRendering()).getChannelData(0));
}

function asWav(samples) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, value) => [...value].forEach((letter, index) => view.setUint8(at + index, letter.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * samples.length, true); text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, SAMPLE_RATE_HZ, true); view.setUint32(28, 2 * SAMPLE_RATE_HZ, true);
  view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, index) => view.setInt16(44 + 2 * index, Math.max(-1, Math.min(1, value)) * 32767, true));
  return new Blob([view], { type: "audio/wav" });
}

async function attach(files) {
  for (const file of files) {
    try {
      if (file.type.startsWith("image/")) {
        attachments.push({ kind: "image", uri: await asDataUri(file), name: file.name || "picture" });
      } else if (file.type.startsWith("audio/") || file.type.startsWith("video/webm")) {
        attachments.push({ kind: "audio", uri: await asDataUri(await asReadableSound(file)), name: file.name || "sound" });
      } else {
        throw new Error("it is neither a picture nor a sound");
      }
    } catch (error) {
      show("error", `${file.name || "The file"} cannot be attached: ${error.message || error}`);
    }
  }
  showAttachments();
}

function showAttachments() {
  $("attachments").replaceChildren(...attachments.map((one, index) => {
    const remove = element("button", { type: "button", textContent: "Remove", ariaLabel: `Remove ${one.name}` });
    remove.onclick = () => { attachments.splice(index, 1); showAttachments(); $("text").focus(); };
    return element("li", {}, medium(one), remove);
  }));
}

function medium(one) {
  return one.kind === "image"
    ? element("img", { src: one.uri, alt: one.name })
    : element("audio", { src: one.uri, controls: true, title: one.name });
}

function part(one) {
  return one.kind === "image"
    ? { type: "image_url", image_url: { url: one.uri } }
    : { type: "audio_url", audio_url: { url: one.uri } };
}

async function record() {
  if (recorder) { recorder.stop(); return; }
  if (isAsking) return;
  isAsking = true;
  try {
    if (!navigator.mediaDevices) throw new Error("a browser lends it to pages over https or from this machine only");
    const microphone = await navigator.mediaDevices.getUserMedia({ audio: true });
    const pieces = [];
    recorder = new MediaRecorder(microphone);
    recorder.ondataavailable = (event) => pieces.push(event.data);
    recorder.onstop = async () => {
      microphone.getTracks().forEach((track) => track.stop());
      const type = recorder.mimeType || "audio/webm";
      recorder = null;
      $("record").setAttribute("aria-pressed", "false");
      $("record").textContent = "Record";
      await attach([new File(pieces, "recording", { type })]);
    };
    recorder.start();
    $("record").setAttribute("aria-pressed", "true");
    $("record").textContent = "Stop recording";
  } catch (error) {
    recorder = null;
    show("error", `The microphone cannot be used: ${error.message || error}`);
  } finally {
    isAsking = false;
  }
}

// Conversation

const NAMES = { user: "You", assistant: "Answer", error: "Error" };

function show(role, text, media = []) {
  const body = element("p", { textContent: text });
  const note = element("footer");
  const article = element("article", { className: role, ariaLabel: NAMES[role] }, ...media.map(medium), body, note);
  $("chat").append(article);
  $("chat").scrollTop = $("chat").scrollHeight;
  return { article, body, note };
}

// Changes what is shown, and follows its end unless somebody has scrolled away from it.
function follow(change) {
  const chat = $("chat");
  const isAtEnd = chat.scrollHeight - chat.scrollTop - chat.clientHeight < 40;
  change();
  if (isAtEnd) chat.scrollTop = chat.scrollHeight;
}

// Settings that are left empty are the server's affair.
function settings() {
  const names = ["temperature", "top_p", "max_tokens", "seed"];
  const wrong = names.find((name) => $(name).validity.badInput);
  if (wrong) throw new Error(`The setting ${wrong} is no number. Change it, or leave it empty.`);
  return Object.fromEntries(names.filter((name) => $(name).value !== "").map((name) => [name, Number($(name).value)]));
}

function request() {
  const system = $("system").value.trim();
  return {
    messages: [...(system ? [{ role: "system", content: system }] : []), ...messages],
    ...settings(),
    stream: true,
    stream_options: { include_usage: true },
  };
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const lines = held.split("\n\n");
    held = lines.pop();
    for (const line of lines) {
      if (line === "data: [DONE]") return;
      yield JSON.parse(line.slice("data: ".length));
    }
  }
}

function describe(usage, seconds, reason) {
  const used = usage.phi4;
  const speed = seconds > 0 ? ` · ${((usage.completion_tokens - 1) / seconds).toFixed(1)} tokens/s` : "";
  const media = used.media.map((one) => ` · ${one.modality} ${one.tokens} tokens`).join("");
  return `adapter ${used.adapter ?? "none"} · ${usage.prompt_tokens} + ${usage.completion_tokens} tokens${media}`
    + ` · rotary ${used.rotary}${speed}${reason === "length" ? " · cut off at the limit of tokens" : ""}`;
}

async function ask(signal) {
  const fields = { method: "POST", headers: headers(), body: JSON.stringify(request()), signal };
  const response = await fetch("v1/chat/completions", fields).catch((error) => {
    throw error.name === "AbortError" ? error : new Error("The server cannot be reached. Is it still running?");
  });
  if (response.ok) return response;
  if (response.status === 401) askForKey();
  const told = await response.json().catch(() => null);
  throw new Error(told?.error?.message ?? `The server answered with status ${response.status}.`);
}

// Returns whether anything was answered.
async function answer() {
  const conversation = messages; // a new chat has another
  const shown = show("assistant", "");
  const stopper = running = new AbortController();
  let text = "";
  let usage = null;
  let reason = null;
  let first = 0;
  let last = 0;
  toggle(true);
  shown.note.textContent = "waiting";
  try {
    for await (const event of events(await ask(stopper.signal))) {
      if (event.error) throw new Error(event.error.message);
      usage = event.usage ?? usage;
      const choice = event.choices[0];
      reason = choice?.finish_reason ?? reason;
      const piece = choice?.delta.content;
      if (!piece) continue;
      last = performance.now();
      first ||= last;
      text += piece;
      follow(() => { shown.body.textContent = text; shown.note.textContent = ""; });
    }
    follow(() => { shown.note.textContent = usage ? describe(usage, (last - first) / 1000, reason) : "broken off"; });
  } catch (error) {
    if (error.name === "AbortError") {
      shown.note.textContent = "stopped";
    } else {
      follow(() => {
        shown.article.className = "assistant error";
        shown.note.textContent = [text && "broken off", error.message || String(error)].filter(Boolean).join(": ");
      });
    }
  }
  // A question without an answer is forgotten: what was wrong with it would fail again and again.
  if (text) conversation.push({ role: "assistant", content: text });
  else conversation.pop();
  if (running === stopper) {
    running = null;
    toggle(false);
  }
  return text !== "";
}

function toggle(isRunning) {
  // Whoever is in another field, such as that of the key, stays there.
  const isFree = [document.body, $("text"), $("send"), $("stop")].includes(document.activeElement);
  $("stop").hidden = !isRunning;
  $("send").hidden = isRunning;
  $("chat").setAttribute("aria-busy", String(isRunning));
  if (isFree) (isRunning ? $("stop") : $("text")).focus();
}

async function send() {
  const text = $("text").value.trim();
  if (running || (!text && !attachments.length)) return;
  // Media stand in front of the text, as the model was trained: pictures, then sounds.
  const media = [...attachments].sort((a, b) => (a.kind === b.kind ? 0 : a.kind === "image" ? -1 : 1));
  messages.push({ role: "user", content: [...media.map(part), ...(text ? [{ type: "text", text }] : [])] });
  show("user", text, media);
  $("text").value = "";
  attachments = [];
  showAttachments();
  const conversation = messages;
  const isAnswered = await answer();
  // It comes back to be changed, unless something else has been begun.
  if (isAnswered || conversation !== messages || $("text").value || attachments.length) return;
  $("text").value = text;
  attachments = media;
  showAttachments();
}

function reset() {
  running?.abort();
  running = null;
  toggle(false);
  messages = [];
  $("chat").replaceChildren();
  $("text").focus();
}

function askForKey() {
  $("settings").open = true;
  $("key").focus();
}

async function nameModel() {
  try {
    const response = await fetch("v1/models", { headers: headers() });
    if (response.status === 401) askForKey();
    $("model").textContent = response.ok ? (await response.json()).data[0].id : "";
  } catch {
    $("model").textContent = "";
  }
}

$("composer").onsubmit = (event) => { event.preventDefault(); send(); };
$("text").onkeydown = (event) => {
  // Safari says of the Enter that ends a composition only by its code that it belongs to one.
  const isComposing = event.isComposing || event.keyCode === 229;
  if (event.key === "Enter" && !event.shiftKey && !isComposing) { event.preventDefault(); send(); }
};
document.onkeydown = (event) => { if (event.key === "Escape") running?.abort(); };
document.onpaste = (event) => {
  const { files, types } = event.clipboardData;
  // Text from an office program comes with a picture of itself.
  const isText = types.includes("text/plain") && types.includes("text/html");
  if (files.length && !isText) { event.preventDefault(); attach([...files]); }
};
document.ondragover = (event) => { event.preventDefault(); $("composer").classList.add("over"); };
document.ondragleave = () => $("composer").classList.remove("over");
document.ondrop = (event) => {
  $("composer").classList.remove("over");
  if (!event.dataTransfer.files.length) return; // text goes where it is dropped
  event.preventDefault();
  attach([...event.dataTransfer.files]);
};
$("file").onchange = async () => { await attach([...$("file").files]); $("file").value = ""; };
$("attach").onkeydown = (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); $("file").click(); } };
$("record").onclick = record;
$("stop").onclick = () => running?.abort();
$("reset").onclick = reset;
$("key").onchange = () => { sessionStorage.setItem("key", $("key").value); nameModel(); };
$("key").value = sessionStorage.getItem("key") ?? "";
$("text").focus();
nameModel();
