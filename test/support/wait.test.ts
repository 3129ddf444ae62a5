import { expect, test } from "vitest";
import { until } from "./wait.ts";

test("until returns the first truthy value, through errors and falsy answers", async () => {
  let calls = 0;
  const value = await until(
    () => {
      calls++;
      if (calls === 1) throw new Error("not yet");
      return calls < 4 ? undefined : calls;
    },
    { what: "four calls", interval: 1 },
  );
  expect(value).toBe(4);
});

test("until fails with what it waited for and the last answer", async () => {
  await expect(until(() => 0, { what: "a miracle", timeout: 5, interval: 1 })).rejects.toThrow(
    /a miracle.*last answer was 0/,
  );
});
