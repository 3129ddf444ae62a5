/** One line about one server. */
export interface Fact {
  readonly server: string;
  readonly text: string;
  readonly mood?: "good" | "bad";
}

/** What the demo has to tell. It does not know how that is shown. */
export interface Screen {
  title(text: string): void;
  /** A numbered step begins. */
  step(title: string): void;
  fact(fact: Fact): void;
  /** What is going on at this moment; replaced by the next, gone with the next fact. */
  now(facts: readonly Fact[]): void;
  /** A sentence or block of lines that is about no server. */
  note(text: string, mood?: "good" | "warning"): void;
  /** The first row is the head; every column but the first holds numbers or words of one length. */
  table(rows: readonly (readonly string[])[]): void;
}
