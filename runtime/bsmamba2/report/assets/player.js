"use strict";
(() => {
  const find = (selector, root = document) => root.querySelector(selector);
  const player = find(".player"), play = find("#play"), position = find("#position");
  const time = find("#time"), status = find("#status");
  const length = Number(player.dataset.seconds), playable = Number(player.dataset.playable);
  const files = [...document.querySelectorAll("script[data-stem]")];
  const stems = [...document.querySelectorAll(".track[data-stem]")].map((element) => ({
    element, solo: find(".solo", element), mute: find(".mute", element),
  }));
  const rate = Number(player.dataset.rate);
  let context = null, buffers = null, sources = [];
  let started = 0; // the context's time at which the song would have begun
  let at = 0; // seconds, while stopped

  const isOn = (button) => button.getAttribute("aria-pressed") === "true";
  const isPlaying = () => sources.length > 0;
  const now = () => Math.min(isPlaying() ? context.currentTime - started : at, playable);

  function clock(seconds) {
    const rest = Math.floor(seconds), two = (n) => String(n).padStart(2, "0");
    const minutes = Math.floor(rest / 60) % 60, hours = Math.floor(rest / 3600);
    return hours ? `${hours}:${two(minutes)}:${two(rest % 60)}` : `${minutes}:${two(rest % 60)}`;
  }

  // The audio is decoded and played at its own rate: the system converts it better than the page.
  async function decode() {
    const decoder = new OfflineAudioContext(1, 1, rate);
    return Promise.all(files.map((file) => {
      const text = atob(file.textContent), bytes = new Uint8Array(text.length);
      for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
      return decoder.decodeAudioData(bytes.buffer);
    }));
  }

  async function load() {
    status.textContent = "Reading the audio…";
    context = context || new AudioContext({ sampleRate: rate });
    buffers = await decode();
    for (const stem of stems) {
      stem.gain = context.createGain();
      stem.gain.connect(context.destination);
    }
    mix();
    status.textContent = "";
  }

  function mix() {
    const anySolo = stems.some((stem) => isOn(stem.solo));
    for (const stem of stems) {
      const heard = anySolo ? isOn(stem.solo) : !isOn(stem.mute);
      stem.element.classList.toggle("muted", !heard);
      if (stem.gain) stem.gain.gain.value = heard ? 1 : 0;
    }
  }

  function stop() {
    at = now();
    for (const source of sources) { source.onended = null; source.stop(); }
    sources = [];
    play.textContent = "Play";
  }

  async function start() {
    play.disabled = true;
    try {
      if (!buffers) await load();
      await context.resume();
    } catch (error) {
      status.textContent = `This browser cannot play the audio: ${error.message}`;
      return;
    } finally {
      play.disabled = false;
    }
    if (at >= playable) at = 0;
    const when = context.currentTime + 0.05;
    started = when - at;
    sources = stems.map((stem, number) => {
      const source = context.createBufferSource();
      source.buffer = buffers[number];
      source.connect(stem.gain);
      source.start(when, at);
      return source;
    });
    sources[0].onended = () => { stop(); at = 0; show(); };
    play.textContent = "Pause";
    draw();
  }

  function seek(seconds) {
    const wasPlaying = isPlaying();
    if (wasPlaying) stop();
    at = Math.max(0, Math.min(seconds, playable));
    if (wasPlaying) start(); else show();
  }

  function show() {
    const seconds = Math.max(now(), 0);
    position.value = seconds;
    position.setAttribute("aria-valuetext", `${clock(seconds)} of ${clock(length)}`);
    time.textContent = `${clock(seconds)} / ${clock(length)}`;
    for (const head of document.querySelectorAll(".head"))
      head.style.left = `${100 * seconds / length}%`;
  }

  function draw() {
    show();
    if (isPlaying()) requestAnimationFrame(draw);
  }

  for (const view of document.querySelectorAll(".view")) {
    const head = view.appendChild(document.createElement("div"));
    head.className = "head";
    view.addEventListener("click", (event) => {
      const box = view.getBoundingClientRect();
      seek(length * (event.clientX - box.left) / box.width);
    });
  }
  for (const stem of stems) for (const button of [stem.solo, stem.mute]) {
    button.disabled = files.length === 0;
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(!isOn(button)));
      mix();
    });
  }
  play.disabled = position.disabled = files.length === 0;
  function toggle() {
    if (isPlaying()) { stop(); show(); } else start();
  }

  play.addEventListener("click", toggle);
  position.addEventListener("input", () => seek(Number(position.value)));
  // Keys work wherever the focus is, except in a control that uses them itself.
  document.addEventListener("keydown", (event) => {
    if (play.disabled || event.ctrlKey || event.altKey || event.metaKey) return;
    const steps = { ArrowLeft: -5, ArrowRight: 5, PageUp: 30, PageDown: -30 };
    if (event.key in steps && (event.target === position || event.key.startsWith("Arrow"))) {
      seek(now() + steps[event.key]);
    } else if (event.key === " " && !event.target.closest("button, a")) {
      toggle();
    } else {
      return;
    }
    event.preventDefault();
  });
  show();
})();
