import { describe, test } from "vitest";
import { arraysOf, expectFaithful, since, TRAVEL, travelConfig, type ValueType } from "./value-history.ts";

/** Most have no equality that an index could use; `*=` finds their rows by the bytes. */
const GEOMETRY: readonly ValueType[] = [
  {
    type: "point",
    key: false,
    values: ["(0,-0)", "(NaN,Infinity)", "(-Infinity,4.9e-324)", "(0.1,0.30000000000000004)"],
  },
  { type: "line", key: false, values: ["{1,-1,0}", "{0.1,0.2,0.3}", "{-0,1,1e300}"] },
  { type: "lseg", key: false, values: ["[(0,0),(1,1)]", "[(1,1),(1,1)]", "[(0.1,-0),(NaN,Infinity)]"] },
  { type: "box", key: false, values: ["(1,1),(0,0)", "(0,5),(3,-2)", "(0.1,0.1),(-0.1,-Infinity)"] },
  {
    type: "path",
    key: false,
    values: ["[(0,0)]", "((0,0))", "[(0,0),(1,1),(2,0.1)]", "((0,0),(1,1),(NaN,0))"],
  },
  {
    type: "polygon",
    key: false,
    values: ["((0,0))", "((0,0),(1,1),(2,0))", "((0.1,0.2),(0.3,0.4),(0.1,0.2))"],
  },
  { type: "circle", key: false, values: ["<(0,0),0>", "<(0.1,-0.1),1e-300>", "<(1,2),Infinity>"] },
];

const RANGES: readonly ValueType[] = [
  { type: "int4range", values: ["empty", "(,)", "[1,2)", "(,5]", "[-2147483648,2147483647)", "[5,)"] },
  { type: "int8range", values: ["empty", "(,)", "[1,9223372036854775807)", "[-9223372036854775808,0]"] },
  {
    type: "numrange",
    values: ["empty", "(,)", "[1,1]", "(1.0,NaN]", "[0.10,1e400)", "(,-0.001)"],
    alike: ["[1.0,1.00]"],
  },
  { type: "daterange", values: ["empty", "(,)", "[4713-01-01 BC,infinity]", "[2000-01-01,2000-02-29]"] },
  {
    type: "tsrange",
    values: [
      "empty",
      "(,)",
      "[-infinity,infinity]",
      '["2000-01-01 00:00:00.000001",)',
      '("0001-01-01 BC","0044-03-15"]',
    ],
  },
  {
    type: "tstzrange",
    values: ["empty", "(,)", '["2000-01-01 00:00:00+05:30","2000-06-01 00:00:00-08")', "[,infinity)"],
  },
];

const MULTIRANGES = since(
  14,
  { type: "int4multirange", values: ["{}", "{(,)}", "{[1,2),[5,7),[9,)}", "{(,1)}"] },
  { type: "int8multirange", values: ["{}", "{[1,9223372036854775807)}"] },
  { type: "nummultirange", values: ["{}", "{(,1.10),[2,3]}", "{[NaN,NaN]}"], alike: ["{(,1.1),[2.0,3.00]}"] },
  { type: "datemultirange", values: ["{}", "{[4713-01-01 BC,0001-01-01),[2000-01-01,infinity]}"] },
  { type: "tsmultirange", values: ["{}", '{["2000-01-01 23:59:59.999999",)}'] },
  {
    type: "tstzmultirange",
    values: ["{}", '{["2000-01-01 00:00:00+14","2001-01-01 00:00:00-12"),[infinity,infinity]}'],
  },
);

describe("geometry, ranges and multiranges", () => {
  test.for(TRAVEL)("arrive as they are, as %s", async ([travel]) => {
    await expectFaithful([...GEOMETRY, ...RANGES, ...MULTIRANGES], { config: travelConfig(travel) });
  });

  test.for(TRAVEL)("arrive as they are in arrays, as %s", async ([travel]) => {
    await expectFaithful(arraysOf([...GEOMETRY, ...RANGES, ...MULTIRANGES]), {
      config: travelConfig(travel),
    });
  });
});
