/** The rows of booktown: the same at every load, a few hundred, with the values that replication gets wrong first. */

const PEOPLE = `
insert into author (author_id, lastname, firstname) values
  (1, 'Austen', 'Jane'), (2, 'Brontë', 'Charlotte'), (3, 'Dickens', 'Charles'), (4, 'Doyle', 'Arthur Conan'),
  (5, 'Homer', null), (6, 'Melville', 'Herman'), (7, 'O''Brien', 'Fitz-James'), (8, 'Poe', 'Edgar Allan'),
  (9, 'Shelley', 'Mary'), (10, 'Stevenson', 'Robert Louis'), (11, 'Twain', 'Mark'), (12, 'Verne', 'Jules');

insert into subject (subject_id, name, shelf) values
  (1, 'Adventure', 'A1'), (2, 'Children''s Books', 'C3'), (3, 'Classics', 'C1'),
  (4, 'Horror', 'H2'), (5, 'Mystery', 'M1'), (6, 'Travel & Sea', 'T4');

insert into employee (employee_id, lastname, firstname, salary, hired, manager_id) values
  (101, 'Appel', 'Mark', 61000.00, '1998-03-02', null),
  (102, 'Holloway', 'Jennifer', 48250.50, '1999-01-11', 101),
  (103, 'Lindqvist', 'Jessica', 47000.00, '1999-06-21', 101),
  (104, 'Thatcher', 'William', 39999.99, '2000-02-29', 102),
  (105, 'O''Leary', 'Jonathan', 38500.25, '2000-09-04', 102),
  (106, 'Sato', 'Kimiko', null, '2001-05-14', 103);

-- Several share a surname: a surname identifies nobody.
insert into customer (cust_id, lastname, firstname) values
  (1, 'Gould', 'Ed'), (2, 'Gould', 'Shirley'), (3, 'Gould', 'Royce'),
  (4, 'Brown', 'Chad'), (5, 'Brown', 'Julie'), (6, 'Morrill', 'Eric'), (7, 'Morrill', 'Tammy'),
  (8, 'Holloway', 'Adam'), (9, 'Holloway', 'Christine'), (10, 'John Nathan', 'Dr.'),
  (11, 'Black', 'Jean'), (12, 'Black', 'James'), (13, 'Owens', 'Laura'), (14, 'Owens', 'Trevor'),
  (15, 'Bollman', 'Jenny'), (16, 'Bollman', 'Chris'), (17, 'O''Neill', 'Siobhán'), (18, 'D''Angelo', null),
  (19, null, 'Cher'), (20, 'Müller-Lüdenscheidt', 'Käthe'), (21, 'Nuñez', 'Íñigo'), (22, '', 'Anonymous'),
  (23, 'null', 'Jennifer'), (24, '\\N', 'Back\\slash'), (25, E'Tab\\tbed', E'New\\nline');
insert into customer (cust_id, lastname, firstname)
  select 25 + n,
    (array['Abbott', 'Baker', 'Carver', 'Draper', 'Ellis', 'Fuller', 'Grover', 'Hunter', 'Ivory', 'Jenner'])[1 + n % 10]
      || case when n > 60 then '-Smith' else '' end,
    (array['Ann', 'Ben', 'Clara', 'David', 'Eve', 'Frank', 'Grace'])[1 + n % 7]
  from generate_series(1, 95) as n;
`;

const BOOKS = `
insert into book (book_id, title, author_id, subject_id, keywords) values
  (1, 'Emma', 1, 3, '{matchmaking,"Highbury, Surrey"}'), (2, 'Persuasion', 1, 3, '{navy,letters}'),
  (3, 'Pride and Prejudice', 1, 3, '{"\\"Mr. Darcy\\"",NULL,dance}'), (4, 'Jane Eyre', 2, 3, '{governess}'),
  (5, 'A Christmas Carol', 3, 2, '{ghosts,christmas}'), (6, 'Great Expectations', 3, 3, '{}'),
  (7, 'Oliver Twist', 3, 3, '{orphan,"more, please"}'), (8, 'The Hound of the Baskervilles', 4, 5, '{moor,"dog''s life"}'),
  (9, 'The Sign of the Four', 4, 5, '{}'), (10, 'The Odyssey', 5, 6, '{sea,"home"}'),
  (11, 'The Iliad', 5, 3, '{war}'), (12, 'Moby-Dick; or, The Whale', 6, 6, '{whale,""}'),
  (13, 'Typee', 6, 6, '{}'), (14, 'What Was It?', 7, 4, '{invisible}'), (15, 'The Raven', 8, 4, '{nevermore}'),
  (16, 'The Tell-Tale Heart', 8, 4, '{}'), (17, 'Frankenstein', 9, 4, '{"the creature",geneva}'),
  (18, 'Kidnapped', 10, 1, '{highlands}'), (19, 'Treasure Island', 10, 1, '{pirates,map,"15 men"}'),
  (20, 'The Adventures of Tom Sawyer', 11, 2, '{fence}'), (21, 'Life on the Mississippi', 11, 6, '{river}'),
  (22, 'Around the World in Eighty Days', 12, 1, '{wager,train}'), (23, 'Journey to the Centre of the Earth', 12, 1, '{}'),
  (24, 'Twenty Thousand Leagues Under the Sea', 12, 6, '{"squid \\\\ ink"}');

insert into inventory (isbn, book_id, stock, cost, retail, reorder_levels, weight)
  select '0-' || lpad((394800 + n * 17)::text, 9, '0') || '-' || n % 10,
    1 + (n - 1) % 24,
    10000 + n * 7,
    (n * 1234567 % 40000000)::numeric / 1000000,
    (5.95 + n % 40)::numeric::money,
    case when n % 5 = 0 then null else array[n % 9, 10 + n % 9, null] end,
    case n % 12 when 0 then 'NaN' else n / 7.0 end
  from generate_series(1, 48) as n;

insert into book_backup (book_id, title, author_id, subject_id)
  select book_id, title, author_id, case when book_id % 6 = 0 then null else subject_id end
  from book, generate_series(1, 2);
`;

const SALES = `
insert into invoice (cust_id, employee_id, total, discount, note, created_at)
  select 1 + n * 7 % 120,
    case when n % 9 = 0 then null else 101 + n % 6 end,
    (n * 731 % 20000 / 100.0)::numeric::money,
    case when n % 4 = 0 then n % 100 / 1000.0 end,
    case when n % 8 = 0 then 'it''s a "gift"' when n % 11 = 0 then '' end,
    timestamptz '2001-08-11 10:00:00+00' + n * interval '37 minutes 1.000001 seconds'
  from generate_series(1, 160) as n;

insert into shipped_orders (invoice_id, cust_id, isbn, shipped_at)
  select invoice_id, cust_id, (select isbn from inventory order by isbn offset invoice_id % 48 limit 1),
    created_at + interval '1 day 2 hours'
  from invoice where invoice_id % 4 > 0 order by invoice_id;

update inventory set retail = retail + '1.00'::numeric::money where book_id <= 12;
update price_history set changed_at = timestamptz '2001-12-31 23:59:59.999999-05';

insert into favorite_book (cust_id, isbn, rating)
  select 1 + n * 11 % 120, (select isbn from inventory order by isbn offset n * 5 % 48 limit 1),
    case when n % 7 = 0 then null else 1 + n % 5 end
  from generate_series(1, 60) as n;
`;

/** Fills the tables of BOOKTOWN_SCHEMA. */
export const BOOKTOWN_DATA = `${PEOPLE}${BOOKS}${SALES}analyze;`;
