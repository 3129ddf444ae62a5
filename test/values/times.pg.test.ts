import { describe, test } from "vitest";
import {
  arraysOf,
  expectFaithful,
  TRAVEL,
  travelConfig,
  type ValueType,
  valueSince,
} from "./value-history.ts";

const STAMPS = [
  "infinity",
  "-infinity",
  "4713-01-01 00:00:00 BC",
  "0001-12-31 23:59:59.999999 BC",
  "0001-01-01 00:00:00",
  "0099-02-03 04:05:06",
  "1582-10-10 00:00:00",
  "1969-12-31 23:59:59.999999",
  "2000-01-01 00:00:00",
  "2000-02-29 12:00:00.000001",
  "2016-12-31 23:59:59.999999",
  "2017-01-01 00:00:00",
  "294276-12-31 23:59:59.999999",
];

const TIMES: readonly ValueType[] = [
  {
    type: "date",
    values: [
      "infinity",
      "-infinity",
      "4713-01-01 BC",
      "0044-03-15 BC",
      "0001-01-01",
      "0031-02-03",
      "1999-12-31",
      "2000-02-29",
      "5874897-12-31",
    ],
  },
  { type: "timestamp", values: STAMPS },
  { type: "timestamp(0)", values: ["2000-01-01 00:00:00", "1999-12-31 23:59:59"] },
  {
    type: "timestamptz",
    values: [
      ...STAMPS.map((stamp) => (/infinity|BC/.test(stamp) ? stamp : `${stamp}+00`)),
      "2021-03-28 01:59:59.999999+01",
      "2021-10-31 02:30:00+01",
      "1890-01-01 00:00:00 Europe/Amsterdam",
    ],
  },
  { type: "time", values: ["00:00:00", "00:00:00.000001", "23:59:59.999999", "24:00:00"] },
  { type: "time(2)", values: ["23:59:59.99", "00:00:00.01"] },
  {
    type: "timetz",
    values: [
      "00:00:00+00",
      "24:00:00-15:59",
      "23:59:59.999999+15:59:59",
      "12:00:00+05:30",
      "12:00:00-00:00:01",
    ],
  },
  {
    type: "interval",
    values: [
      "0",
      "1 microsecond",
      "-1 microsecond",
      "1 year 2 months 3 days 04:05:06.789",
      "-1 years -2 mons +3 days -04:05:06",
      "1 mon -1 day",
      "-1 mon 1 day 1 sec",
      "2147483647 months",
      "-2147483648 months",
      "2147483647 days",
      "-178000000 years 1 day",
      "178000000 years",
      "2147483647 days 23:59:59.999999",
      // Older servers print more than they read.
      ...valueSince(15, "2562047788:00:54.775807", "-2562047788:00:54.775807"),
      ...valueSince(17, "infinity", "-infinity"),
    ],
    alike: ["24 hours -1 days", "1 day -24 hours", "-30 days 1 mon"],
  },
  { type: "interval year to month", values: ["1-2", "-3-4"] },
  { type: "interval second(3)", values: ["1.234", "-0.001"] },
];

describe("times", () => {
  test.for(TRAVEL)("arrive as they are, as %s", async ([travel]) => {
    await expectFaithful(TIMES, { config: travelConfig(travel) });
  });

  test.for(TRAVEL)("arrive as they are in arrays, as %s", async ([travel]) => {
    await expectFaithful(arraysOf(TIMES), { config: travelConfig(travel) });
  });
});
