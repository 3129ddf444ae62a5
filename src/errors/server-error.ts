/** An ErrorResponse or NoticeResponse of the server, its fields by name. https://www.postgresql.org/docs/current/protocol-error-fields.html */
export interface ServerErrorFields {
  readonly severity: string;
  /** SQLSTATE */
  readonly code: string;
  readonly message: string;
  readonly detail?: string;
  readonly hint?: string;
  readonly schema?: string;
  readonly table?: string;
  readonly column?: string;
  readonly constraint?: string;
  readonly where?: string;
  readonly routine?: string;
}

/** An error that a server answered on a data-plane connection. `detail` and `where` may hold row values: never log them. */
export class ServerError extends Error {
  override readonly name = "ServerError";
  readonly fields: ServerErrorFields;
  constructor(fields: ServerErrorFields) {
    super(fields.message);
    this.fields = fields;
  }
  get code(): string {
    return this.fields.code;
  }
}
