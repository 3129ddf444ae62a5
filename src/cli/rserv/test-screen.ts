import { type Paint, padEnd } from "../render/paint.ts";

/** What can be pressed, in the old window's order. */
const BUTTONS = ["Update", "Replicate", "Show", "Quit"] as const;
export type Button = (typeof BUTTONS)[number];

export interface ScreenState {
  readonly master: string;
  readonly slave: string;
  readonly text: string;
  readonly selected: Button;
  /** Whether the slave had the text when it was last looked at; undefined before. */
  readonly shown: boolean | undefined;
  /** What the last button has done. */
  readonly message: string;
  readonly busy: boolean;
}

export function initialScreen(master: string, slave: string): ScreenState {
  return { master, slave, text: "", selected: "Update", shown: undefined, message: "", busy: false };
}

/** A key as readline names it. */
export interface Key {
  readonly name?: string | undefined;
  readonly sequence?: string | undefined;
  readonly ctrl?: boolean;
  readonly shift?: boolean;
}

/** The state behind a key, and the button that it has pressed. */
export function onKey(state: ScreenState, key: Key): { state: ScreenState; pressed?: Button } {
  if (key.ctrl === true && (key.name === "c" || key.name === "d")) return { state, pressed: "Quit" };
  if (state.busy) return { state };
  const move = (by: number): ScreenState => {
    const index = (BUTTONS.indexOf(state.selected) + by + BUTTONS.length) % BUTTONS.length;
    return { ...state, selected: BUTTONS[index] as Button };
  };
  switch (key.name ?? "") {
    case "return":
    case "enter":
      return { state, pressed: state.selected };
    case "tab":
      return { state: move(key.shift === true ? -1 : 1) };
    case "right":
      return { state: move(1) };
    case "left":
      return { state: move(-1) };
    case "backspace":
      return { state: { ...state, text: Array.from(state.text).slice(0, -1).join(""), shown: undefined } };
    default:
      return { state: typed(state, key.sequence ?? "") };
  }
}

function typed(state: ScreenState, sequence: string): ScreenState {
  // Function keys come as escape sequences.
  if (sequence === "" || /[\u0000-\u001f\u007f]/.test(sequence)) return state;
  return { ...state, text: state.text + sequence, shown: undefined };
}

const FIELD_WIDTH = 40;

export function renderScreen(state: ScreenState, paint: Paint): string[] {
  const { master, slave, text, selected, shown, message, busy } = state;
  const tail = Array.from(text)
    .slice(-(FIELD_WIDTH - 1))
    .join("");
  const buttons = BUTTONS.map((button) =>
    button === selected ? paint.strong(`[>${button}<]`) : `[ ${button} ]`,
  );
  return [
    paint.strong("RservTest"),
    "",
    `  master  ${master}`,
    `  slave   ${slave}`,
    "",
    `  Text          ${padEnd(`${tail}_`, FIELD_WIDTH)}`,
    `  On the slave  ${shown === true ? paint.good(tail) : paint.faint(shown === false ? "n/a" : "")}`,
    "",
    `  ${buttons.join("  ")}`,
    "",
    `  ${busy ? "..." : message}`,
    `  ${paint.faint("type a text; Tab chooses, Enter presses, Ctrl-C quits")}`,
  ];
}
