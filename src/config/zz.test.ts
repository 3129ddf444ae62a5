import {test} from "vitest"; import {configJsonSchema} from "./json-schema.ts"; import {configSchema} from "./schema.ts";
test("x",()=>{ console.log(JSON.stringify(configJsonSchema(),null,1));
 const r = configSchema.safeParse({source:1, targets:{"a b":"x", c: 3, d:{port:true}}, tabels:1, tables:{include:["x",{table:"public.*",colums:1,columns:[]}, {table:"p.*",columns:["a"]}, 3], exclude:[3]}, timeout: 30, capture:"wall", apply:{group:{bytes:"4mb",transactions:1.5}}});
 console.log(JSON.stringify(r.error?.issues,null,1));
 console.log(JSON.stringify(configSchema.parse({source:"x",targets:{a:"y"}}),null,1));
});
