-- Types, routines, operators, casts, collations and text search.

SELECT CASE t.typtype WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain' WHEN 'r' THEN 'range type' WHEN 'c' THEN 'type privileges' ELSE 'type' END AS kind,
    format('%I.%I', n.nspname, t.typname) AS name, '' AS parent, json_build_object(
    'owner', pg_get_userbyid(t.typowner),
    'privileges', $acl(t.typacl, T, t.typowner)$,
    'labels', (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
    'base type', CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) END,
    'nullable', CASE WHEN t.typtype = 'd' THEN CASE WHEN t.typnotnull THEN 'no' ELSE 'yes' END END,
    'default', t.typdefault,
    'collation', CASE WHEN t.typtype = 'd' THEN (SELECT format('%I.%I', ln.nspname, l.collname) FROM pg_collation l
        JOIN pg_namespace ln ON ln.oid = l.collnamespace WHERE l.oid = t.typcollation) END,
    'subtype', (SELECT format_type(r.rngsubtype, NULL) || ' ' || o.opcname || coalesce(' collate ' || (SELECT l.collname FROM pg_collation l
        WHERE l.oid = r.rngcollation), '') || ' canonical ' || r.rngcanonical::text || ' difference ' || r.rngsubdiff::text
        FROM pg_range r JOIN pg_opclass o ON o.oid = r.rngsubopc WHERE r.rngtypid = t.oid),
    'multirange', (SELECT format_type((to_jsonb(r) ->> 'rngmultitypid')::oid, NULL) FROM pg_range r WHERE r.rngtypid = t.oid),
    'functions', CASE WHEN t.typtype = 'b' THEN concat_ws(', ', t.typinput, t.typoutput, t.typreceive, t.typsend, t.typmodin, t.typmodout) END,
    'layout', CASE WHEN t.typtype = 'b' THEN concat_ws(' ', t.typlen, t.typbyval, t.typalign, t.typstorage, t.typcategory) END,
    'comment', CASE WHEN t.typtype <> 'c' THEN obj_description(t.oid, 'pg_type') END)::text AS properties
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE $user(n.nspname)$ AND $own(pg_type, t.oid)$ AND t.typtype <> 'm'
    AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
    AND (t.typrelid = 0 OR EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c'));

-- when: pg_constraint WHERE contypid <> 0 AND connamespace IS DISTINCT FROM to_regnamespace('information_schema')
SELECT 'constraint', format('%I.%I.%I', n.nspname, t.typname, k.conname), format('%I.%I', n.nspname, t.typname), json_build_object(
    'definition', pg_get_constraintdef(k.oid),
    'validated', k.convalidated::text,
    'comment', obj_description(k.oid, 'pg_constraint'))::text
FROM pg_constraint k JOIN pg_type t ON t.oid = k.contypid JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE $user(n.nspname)$ AND $own(pg_type, t.oid)$;

-- when: pg_proc WHERE pronamespace <> 11 AND pronamespace IS DISTINCT FROM to_regnamespace('information_schema')
SELECT CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' WHEN 'w' THEN 'window function' ELSE 'function' END,
    p.oid::regprocedure::text, '', json_build_object(
    'owner', pg_get_userbyid(p.proowner),
    'privileges', $acl(p.proacl, f, p.proowner)$,
    'definition', CASE WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid) END,
    'result', CASE WHEN p.prokind = 'a' THEN pg_get_function_result(p.oid) END,
    'arguments', CASE WHEN p.prokind = 'a' THEN pg_get_function_arguments(p.oid) END,
    'parallel', CASE WHEN p.prokind = 'a' THEN p.proparallel::text END,
    'aggregation', (SELECT concat_ws(', ', 'kind ' || g.aggkind::text, 'state ' || format_type(g.aggtranstype, NULL), 'transition ' || g.aggtransfn,
        'final ' || g.aggfinalfn, 'combine ' || g.aggcombinefn, 'serial ' || g.aggserialfn, 'deserial ' || g.aggdeserialfn,
        'moving ' || g.aggmtransfn, g.aggminvtransfn, g.aggmfinalfn, 'initial ' || g.agginitval, 'moving initial ' || g.aggminitval,
        'sort ' || g.aggsortop::regoperator, 'modify ' || g.aggfinalmodify::text || g.aggmfinalmodify::text, 'extra ' || g.aggfinalextra::text || g.aggmfinalextra::text)
        FROM pg_aggregate g WHERE g.aggfnoid = p.oid),
    'comment', obj_description(p.oid, 'pg_proc'))::text
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
-- A range type brings its constructors, which follow from the type.
WHERE $user(n.nspname)$ AND $own(pg_proc, p.oid)$ AND NOT EXISTS (SELECT FROM pg_depend d
    WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'i');

-- when: pg_operator WHERE oprnamespace <> 11
SELECT 'operator', o.oid::regoperator::text, '', json_build_object(
    'owner', pg_get_userbyid(o.oprowner),
    'definition', concat_ws(', ', 'function ' || o.oprcode, 'result ' || format_type(o.oprresult, NULL), 'commutator ' || o.oprcom::regoperator,
        'negator ' || o.oprnegate::regoperator, 'restrict ' || o.oprrest, 'join ' || o.oprjoin, CASE WHEN o.oprcanhash THEN 'hashes' END,
        CASE WHEN o.oprcanmerge THEN 'merges' END),
    'comment', obj_description(o.oid, 'pg_operator'))::text
FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace WHERE $user(n.nspname)$ AND $own(pg_operator, o.oid)$;

-- when: pg_opclass WHERE opcnamespace <> 11
SELECT 'operator class', format('%I.%I using %I', n.nspname, o.opcname, m.amname), '', json_build_object(
    'owner', pg_get_userbyid(o.opcowner),
    'definition', concat_ws(', ', 'for ' || format_type(o.opcintype, NULL), CASE WHEN o.opcdefault THEN 'default' END,
        'family ' || (SELECT f.opfname FROM pg_opfamily f WHERE f.oid = o.opcfamily),
        CASE WHEN o.opckeytype <> 0 THEN 'storage ' || format_type(o.opckeytype, NULL) END),
    'comment', obj_description(o.oid, 'pg_opclass'))::text
FROM pg_opclass o JOIN pg_namespace n ON n.oid = o.opcnamespace JOIN pg_am m ON m.oid = o.opcmethod
WHERE $user(n.nspname)$ AND $own(pg_opclass, o.oid)$;

-- when: pg_opfamily WHERE opfnamespace <> 11
SELECT 'operator family', format('%I.%I using %I', n.nspname, f.opfname, m.amname), '', json_build_object(
    'owner', pg_get_userbyid(f.opfowner),
    'operators', (SELECT string_agg(x, ', ' ORDER BY x) FROM (SELECT concat_ws(' ', a.amopstrategy, a.amopopr::regoperator, a.amoppurpose) AS x
        FROM pg_amop a WHERE a.amopfamily = f.oid) s),
    'functions', (SELECT string_agg(x, ', ' ORDER BY x) FROM (SELECT concat_ws(' ', a.amprocnum, format_type(a.amproclefttype, NULL),
        format_type(a.amprocrighttype, NULL), a.amproc::regprocedure) AS x FROM pg_amproc a WHERE a.amprocfamily = f.oid) s),
    'comment', obj_description(f.oid, 'pg_opfamily'))::text
FROM pg_opfamily f JOIN pg_namespace n ON n.oid = f.opfnamespace JOIN pg_am m ON m.oid = f.opfmethod
WHERE $user(n.nspname)$ AND $own(pg_opfamily, f.oid)$;

-- when: pg_cast WHERE oid >= 16384
SELECT 'cast', format('(%s AS %s)', format_type(k.castsource, NULL), format_type(k.casttarget, NULL)), '', json_build_object(
    'function', nullif(k.castfunc::regprocedure::text, '-'),
    'context', CASE k.castcontext WHEN 'e' THEN 'explicit' WHEN 'a' THEN 'assignment' ELSE 'implicit' END,
    'method', CASE k.castmethod WHEN 'f' THEN 'function' WHEN 'i' THEN 'inout' ELSE 'binary' END,
    'comment', obj_description(k.oid, 'pg_cast'))::text
FROM pg_cast k WHERE k.oid >= 16384 AND $own(pg_cast, k.oid)$;

-- when: pg_collation WHERE collnamespace <> 11
SELECT 'collation', format('%I.%I', n.nspname, l.collname), '', json_build_object(
    'owner', pg_get_userbyid(l.collowner),
    'provider', l.collprovider::text,
    'deterministic', l.collisdeterministic::text,
    'encoding', l.collencoding::text,
    'collate', l.collcollate,
    'ctype', l.collctype,
    'locale', coalesce(to_jsonb(l) ->> 'colllocale', to_jsonb(l) ->> 'colliculocale'),
    'rules', to_jsonb(l) ->> 'collicurules',
    'version', l.collversion,
    'comment', obj_description(l.oid, 'pg_collation'))::text
FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace WHERE $user(n.nspname)$ AND $own(pg_collation, l.oid)$;

-- when: pg_conversion WHERE connamespace <> 11
SELECT 'conversion', format('%I.%I', n.nspname, c.conname), '', json_build_object(
    'owner', pg_get_userbyid(c.conowner),
    'definition', concat_ws(' ', pg_encoding_to_char(c.conforencoding), pg_encoding_to_char(c.contoencoding), c.conproc, c.condefault))::text
FROM pg_conversion c JOIN pg_namespace n ON n.oid = c.connamespace WHERE $user(n.nspname)$ AND $own(pg_conversion, c.oid)$;

-- when: pg_ts_config WHERE cfgnamespace <> 11
SELECT 'text search configuration', format('%I.%I', n.nspname, c.cfgname), '', json_build_object(
    'owner', pg_get_userbyid(c.cfgowner),
    'parser', (SELECT quote_ident(p.prsname) FROM pg_ts_parser p WHERE p.oid = c.cfgparser),
    'mappings', (SELECT string_agg(m.maptokentype || ' ' || m.mapseqno || ' ' || m.mapdict::regdictionary, ', ' ORDER BY m.maptokentype, m.mapseqno)
        FROM pg_ts_config_map m WHERE m.mapcfg = c.oid),
    'comment', obj_description(c.oid, 'pg_ts_config'))::text
FROM pg_ts_config c JOIN pg_namespace n ON n.oid = c.cfgnamespace WHERE $user(n.nspname)$ AND $own(pg_ts_config, c.oid)$;

-- when: pg_ts_dict WHERE dictnamespace <> 11
SELECT 'text search dictionary', format('%I.%I', n.nspname, d.dictname), '', json_build_object(
    'owner', pg_get_userbyid(d.dictowner),
    'template', (SELECT quote_ident(t.tmplname) FROM pg_ts_template t WHERE t.oid = d.dicttemplate),
    'options', d.dictinitoption,
    'comment', obj_description(d.oid, 'pg_ts_dict'))::text
FROM pg_ts_dict d JOIN pg_namespace n ON n.oid = d.dictnamespace WHERE $user(n.nspname)$ AND $own(pg_ts_dict, d.oid)$;

-- when: pg_ts_parser WHERE prsnamespace <> 11
SELECT 'text search parser', format('%I.%I', n.nspname, p.prsname), '', json_build_object(
    'definition', concat_ws(', ', p.prsstart, p.prstoken, p.prsend, p.prsheadline, p.prslextype))::text
FROM pg_ts_parser p JOIN pg_namespace n ON n.oid = p.prsnamespace WHERE $user(n.nspname)$ AND $own(pg_ts_parser, p.oid)$;

-- when: pg_ts_template WHERE tmplnamespace <> 11
SELECT 'text search template', format('%I.%I', n.nspname, t.tmplname), '', json_build_object(
    'definition', concat_ws(', ', t.tmplinit, t.tmpllexize))::text
FROM pg_ts_template t JOIN pg_namespace n ON n.oid = t.tmplnamespace WHERE $user(n.nspname)$ AND $own(pg_ts_template, t.oid)$
