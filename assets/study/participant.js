/** A participant's way through a study. The server says which step is next; this page shows it, and sends what was
 * done. */

import { make, paragraphs } from "./dom.js";
import { Outbox, Refused } from "./outbox.js";
import { Player, Sound } from "./player.js";
import { Trial } from "./trials.js";

const STUDY = location.pathname.split("/").filter(Boolean).pop();
const IDS = Object.fromEntries(new URLSearchParams(location.search));
const PREVIEW = IDS.assignmentId === "ASSIGNMENT_ID_NOT_AVAILABLE"; // how MTurk shows a task that is not accepted yet
const BACK_AFTER_S = 15;
const BURST_S = 1;
const PERIOD_S = 1.5; // of the headphone check: a burst and the gap after it

const HEADPHONES = `This study needs headphones. First, a short check that they work.

You hear three bursts of noise. One of them hides a faint tone. Over headphones you can make it out, over loudspeakers \
hardly. If you are not sure, guess.`;
const SCREENED_OUT = `The sound check at the start was not passed, which happens without headphones and sometimes with \
them. So the study ends here for you.`;
const LAPSED = "You were away for so long that somebody else now takes part in your place.";
const COUNTS = "The practice is over. From here on your answers count.";
const VOLUME = `This noise is as loud as the clips. Play it, and set your volume so that it is clear and comfortable.

Then please leave the volume there until the end.`;
const UNSENT = "No answer from the server. What you entered is kept here and sent again: please leave this page open.";

const IN_PAGE = ["title", "where", "course", "card", "sending", "contact", "withdraw", "leave", "stay", "erase"];
const page = Object.fromEntries(IN_PAGE.map((id) => [id, document.getElementById(id)]));
const outbox = new Outbox(`${STUDY}/api/`, JSON.stringify(IDS), sending);
let texts = {};
let keys = new Map();
let leaving = () => {};
let before = ""; // the phase of the step before, in this page
let turn = 0; // counts what was begun: what ends after something else has begun is no longer shown

// the frame of every step

/** Shows a step: its heading, which takes the focus, and its parts. */
function show(heading, ...parts) {
  leaving();
  leaving = () => {};
  keys = new Map();
  const title = make("h1", { tabIndex: -1 }, heading);
  page.card.replaceChildren(title, ...parts.flat().filter(Boolean));
  title.focus({ preventScroll: true });
  scrollTo(0, 0);
}

function button(label, action, properties = {}) {
  return make("button", { type: "button", class: "primary", on: { click: action }, ...properties }, label);
}

function row(...buttons) {
  return make("div", { class: "row end" }, buttons);
}

function sending(tries) {
  page.sending.classList.toggle("waiting", tries > 1);
  const text = tries < 2 ? "" : UNSENT;
  if (page.sending.textContent !== text) page.sending.textContent = text;
}

/** Sends once, then shows the step that the server answers with. */
async function go(path, body = {}) {
  for (const control of page.card.querySelectorAll("button, input, textarea")) control.disabled = true;
  await follow(() => outbox.send(path, body));
}

async function follow(request) {
  const mine = (turn += 1);
  try {
    const step = await request();
    if (mine === turn) await enter(step);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (mine !== turn) return;
    if (error.status === 409)
      await follow(() => outbox.read("step")); // answered elsewhere: go on where the server is
    else if (error.status === 404) lost(error);
    else stopped(error);
  }
}

/** The server knows no such session: erased here, in another tab or by the owner, or this study is gone. */
function lost(error) {
  forget();
  stopped(error);
}

function forget() {
  outbox.forget();
  page.withdraw.hidden = page.course.hidden = true;
  page.where.textContent = "";
}

function stopped(error) {
  page.withdraw.hidden = true;
  const again = row(button("Load again", () => location.reload()));
  show(error.status === 403 ? "No place is left" : "The study cannot go on here", make("p", { class: "said" }, error.message), error.told.code ? codeParts(error.told) : again);
}

/** Shows where the session stands: `{session, trial, feedback, finish}`. */
async function enter({ session, trial, feedback, finish }) {
  page.withdraw.hidden = !session.id;
  page.course.hidden = session.total === 0;
  const percent = session.total ? Math.round((100 * session.done) / session.total) : 0;
  page.course.setAttribute("aria-valuenow", String(percent));
  page.course.firstElementChild.style.width = `${percent}%`;
  page.where.textContent = trial ? `${trial.number} of ${trial.total}` : "";
  if (feedback) return learn(feedback, { session, trial, finish });
  if (session.state === "consent") return consent();
  if (session.state === "declined") return end("You are not taking part", "Nothing about you was stored.", session);
  if (session.state === "screened_out") return end("Thank you, that was all", SCREENED_OUT, session);
  if (session.state === "lapsed") return end("Your place was given to someone else", LAPSED, session);
  if (finish) return end("Thank you: you have finished", finish.debrief || "All your answers are stored.", finish);
  if (!trial) return go("finish");
  const steps = { headphones, level, practice: listen, main: listen, comment };
  const news = before !== "" && before !== trial.phase ? introduction(trial) : null;
  before = trial.phase;
  return news ? introduce(news, { session, trial }) : steps[trial.phase](trial);
}

/** The decoded sounds of a step, while the page says that it loads. */
async function load(trial) {
  const mine = turn;
  show(heading(trial), make("p", { class: "subdued", role: "status" }, "Loading the sounds…"));
  const clips = [...trial.clips, ...(trial.reference ? [trial.reference] : [])];
  const fetched = clips.map(async ({ handle }) => (await Sound.of(await outbox.bytes(`sound/${handle}`))).buffer);
  const buffers = await Promise.all(fetched);
  return mine === turn ? buffers : new Promise(() => {});
}

function heading({ phase, number, total }) {
  const named = { headphones: "Headphone check", level: "Set the volume", practice: "Practice" };
  return named[phase] ?? `Listen: ${number} of ${total}`;
}

// the steps

function consent() {
  const tick = make("input", { type: "checkbox", on: { change: () => (agree.disabled = !tick.checked || PREVIEW) } });
  const agree = button("Begin", () => go("consent", { ids: IDS, agreed: true, key: outbox.browserKey }), { disabled: true });
  const decline = button("I do not want to take part", () => go("consent", { ids: {}, agreed: false }), { class: "" });
  before = "consent";
  show(
    texts.title,
    PREVIEW ? make("p", { class: "notice" }, "This is a preview: accept the task to take part.") : null,
    paragraphs(texts.introduction),
    make("p", {}, `It takes about ${texts.minutes} ${texts.minutes === 1 ? "minute" : "minutes"}.`),
    make("h2", {}, "Your consent"),
    paragraphs(texts.consent),
    make("p", {}, "Nothing about you is stored before you agree."),
    make("label", { class: "tick" }, tick, make("span", {}, "I have read this, and I agree to take part.")),
    row(decline, agree),
  );
}

/** What to say before a new part of the study: heading and text, or nothing. */
function introduction(trial) {
  return {
    headphones: ["Put on your headphones", HEADPHONES],
    practice: ["What you will do", `${texts.instructions}\n\nFirst some practice, which does not count.`],
    main: before === "practice" ? ["Now it counts", COUNTS] : ["What you will do", texts.instructions],
  }[trial.phase];
}

function introduce([title, text], step) {
  const start = button("Start", () => follow(async () => step));
  show(title, paragraphs(text), row(start));
  keys = new Map([["Enter", () => start.click()]]);
}

async function headphones(trial) {
  const sound = new Sound((await load(trial))[0]);
  const began = performance.now();
  const player = new Player(light, light);
  const answers = trial.options.map(({ value, label }) =>
    button(label, () => go("answer", given(trial, sound, value, began)), { class: "", "aria-label": `Burst ${label}` }),
  );
  const play = button("Play the three bursts", () => player.play(sound));

  function light() {
    const positionS = player.positionS;
    const now = player.sound && positionS % PERIOD_S <= BURST_S ? Math.floor(positionS / PERIOD_S) : -1;
    answers.forEach((answer, index) => {
      answer.classList.toggle("now", index === now);
      answer.disabled = player.sound !== null || sound.longestS === 0;
    });
    play.disabled = player.sound !== null;
  }

  show(
    heading(trial),
    make("p", {}, trial.question),
    make("div", { class: "row" }, play),
    make("fieldset", {}, make("legend", {}, "The tone was in burst"), make("div", { class: "answers" }, answers)),
  );
  leaving = () => player.stop();
  keys = new Map([["p", () => play.click()], ...answers.map((one, index) => [String(index + 1), () => one.click()])]);
  light();
}

function given(trial, sound, value, began) {
  const response = { response_s: Number(((performance.now() - began) / 1000).toFixed(3)) };
  return {
    trial: trial.key,
    value,
    plays: [sound.plays],
    listened_s: [Number(sound.listenedS.toFixed(3))],
    ...response,
  };
}

async function level(trial) {
  const sound = new Sound((await load(trial))[0]);
  const began = performance.now();
  const player = new Player(update, () => {});
  const next = button("It is comfortable", () => {
    player.stop();
    go("answer", given(trial, sound, trial.options[0].value, began));
  });
  const play = button("", () => (player.sound ? player.stop() : player.play(sound)), { class: "" });

  function update() {
    play.textContent = player.sound ? "Stop the noise" : "Play the noise";
    next.disabled = sound.plays === 0;
  }

  show(heading(trial), paragraphs(VOLUME), row(play, next));
  leaving = () => player.stop();
  keys = new Map([
    ["p", () => play.click()],
    ["Enter", () => next.click()],
  ]);
  update();
}

async function listen(trial) {
  const buffers = await load(trial);
  const save = trial.phase === "practice" ? "Continue" : "Save and continue";
  const next = button(save, () => go("answer", { trial: trial.key, ...shown.answer() }));
  const shown = new Trial(trial, buffers, (ready) => (next.disabled = !ready));
  show(
    heading(trial),
    trial.instruction ? make("p", { class: "notice" }, trial.instruction) : null,
    shown.element,
    row(next),
    help(trial, shown),
  );
  leaving = () => shown.stop();
  keys = new Map([...shown.keys, ["Enter", () => next.click()]]);
}

/** What the single keys do, how to turn them off, and the instructions again. */
function help(trial, shown) {
  const entry = (key, text) => [make("dt", {}, make("kbd", {}, key)), make("dd", {}, text)];
  const plays = shown.clips.map(({ key, name }) => entry(key.toUpperCase(), `play or stop ${name}`));
  const chooses = trial.options.length ? entry(`1 to ${trial.options.length}`, "choose an answer") : [];
  const change = () => outbox.memory.set("single keys", on.checked);
  const on = make("input", { type: "checkbox", checked: singleKeys(), on: { change } });
  return make(
    "details",
    {},
    make("summary", {}, "Instructions and keys"),
    paragraphs(texts.instructions),
    make("dl", { class: "keys" }, plays, chooses, entry("Enter", "continue")),
    make("label", { class: "tick" }, on, make("span", {}, "Use these single keys")),
  );
}

function singleKeys() {
  return outbox.memory.get("single keys") !== false;
}

function learn(feedback, next) {
  const truths = { original: "It was a recording.", generated: "It was generated by a machine." };
  const said = { original: "a recording", generated: "generated", uncertain: "uncertain", withheld: "no judgement" };
  const percent = feedback.probability === null ? "" : ` (${Math.round(100 * feedback.probability)} % generated)`;
  const counts = feedback.detector === "uncertain" ? "At its threshold that counts as" : "That is";
  const judged = { true: ` ${counts} right.`, false: ` ${counts} wrong.`, null: "" }[String(feedback.detector_correct)];
  const totals = (who, right, all) => make("div", {}, who, make("b", {}, `${right} of ${all}`), "right");
  const on = button("Continue", () => follow(async () => next));
  show(
    feedback.correct ? "You were right" : "You were wrong",
    make("p", {}, truths[feedback.truth] ?? `The right answer was: ${feedback.truth}.`),
    feedback.detector ? make("p", {}, `The detector said: ${said[feedback.detector]}${percent}.${judged}`) : null,
    feedback.answered
      ? make(
          "div",
          { class: "totals" },
          totals("You", feedback.human_total, feedback.answered),
          totals("The detector", feedback.detector_total, feedback.detector_judged),
        )
      : null,
    row(on),
  );
  keys = new Map([["Enter", () => on.click()]]);
}

function comment(trial) {
  const text = make("textarea", { maxLength: 2000 });
  show(
    "That was the last clip",
    make("label", { class: "field" }, "Is there anything you would like to tell us? (optional)", text),
    row(button("Finish", () => go("answer", { trial: trial.key, text: text.value }))),
  );
}

function end(title, text, outcome) {
  show(title, paragraphs(text), codeParts(outcome));
}

function codeParts({ code, redirect }) {
  const parts = code ? [make("p", {}, "Your code:"), make("p", { class: "code", id: "code" }, code)] : [];
  return redirect ? [...parts, ...back(redirect)] : parts;
}

/** A link back to where the participant came from, followed by itself after a while unless told not to. */
function back(address) {
  const told = make("p", { class: "small subdued" });
  const stay = button("Stay here", stop, { class: "" });
  let left = BACK_AFTER_S;
  const timer = setInterval(() => {
    left -= 1;
    tell();
    if (left > 0) return;
    clearInterval(timer); // asked for twice, a slow address would be begun anew
    location.assign(address);
  }, 1000);
  function tell() {
    told.textContent = `You will be taken back in ${Math.max(left, 0)} s.`;
  }
  function stop() {
    clearInterval(timer);
    told.remove();
    stay.remove();
  }
  tell();
  queueMicrotask(() => (leaving = stop));
  return [told, row(stay, make("a", { class: "button primary", href: address }, "Go back now"))];
}

// the page itself

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("textarea, input[type=text]");
  const pressing = event.key === "Enter" && event.target.matches("button, a, summary");
  const other = event.repeat || event.ctrlKey || event.altKey || event.metaKey || page.leave.open;
  if (typing || pressing || other || !singleKeys()) return;
  const action = keys.get(event.key.length === 1 ? event.key.toLowerCase() : event.key);
  if (action === undefined) return;
  event.preventDefault();
  action();
});

page.withdraw.addEventListener("click", () => page.leave.showModal());
page.stay.addEventListener("click", () => page.leave.close());
page.erase.addEventListener("click", async () => {
  page.leave.close();
  turn += 1;
  try {
    await outbox.send("withdraw");
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (error.status !== 404) return stopped(error); // 404: an earlier try has erased it
  }
  withdrawn();
});

function withdrawn() {
  forget();
  show("You have withdrawn", make("p", {}, "Everything that was stored about you in this study is erased."));
}

async function begin() {
  try {
    texts = await outbox.read("page");
    document.title = page.title.textContent = texts.title;
    page.contact.textContent = texts.contact;
    if ((await outbox.flush()) === "withdraw") return withdrawn();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return stopped(error);
  }
  await follow(() => outbox.send("enrol", { ids: IDS }));
}

begin();
