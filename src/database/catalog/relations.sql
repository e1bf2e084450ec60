-- Everything that hangs on a relation. Each statement returns kind, name, parent and properties (JSON of text values).
-- The shorthands own, user and acl between dollar signs are expanded by `catalog.rs`.

SELECT 'schema' AS kind, quote_ident(n.nspname) AS name, '' AS parent, json_build_object(
    'owner', pg_get_userbyid(n.nspowner),
    'privileges', $acl(n.nspacl, n, n.nspowner)$,
    'comment', obj_description(n.oid, 'pg_namespace'))::text AS properties
FROM pg_namespace n WHERE $user(n.nspname)$ AND $own(pg_namespace, n.oid)$;

SELECT CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
        WHEN 'f' THEN 'foreign table' WHEN 'S' THEN 'sequence' ELSE 'composite type' END,
    format('%I.%I', n.nspname, c.relname), '', json_build_object(
    'partitioned', CASE WHEN c.relkind = 'p' THEN 'yes' END,
    'persistence', CASE c.relpersistence WHEN 'p' THEN 'permanent' WHEN 'u' THEN 'unlogged' ELSE 'temporary' END,
    'owner', pg_get_userbyid(c.relowner),
    'privileges', CASE WHEN c.relkind = 'c' THEN NULL WHEN c.relkind = 'S' THEN $acl(c.relacl, s, c.relowner)$
        ELSE $acl(c.relacl, r, c.relowner)$ END,
    'row security', CASE WHEN c.relrowsecurity THEN 'enabled' END,
    'row security for the owner', CASE WHEN c.relforcerowsecurity THEN 'forced' END,
    'replica identity', CASE WHEN c.relkind IN ('r', 'p', 'm') THEN
        CASE c.relreplident WHEN 'd' THEN 'default' WHEN 'n' THEN 'nothing' WHEN 'f' THEN 'full' ELSE 'index' END END,
    'storage parameters', (SELECT string_agg(o, ', ' ORDER BY o) FROM unnest(c.reloptions) o),
    'toast storage parameters', (SELECT string_agg(o, ', ' ORDER BY o) FROM pg_class t, unnest(t.reloptions) o WHERE t.oid = c.reltoastrelid),
    'tablespace', (SELECT spcname FROM pg_tablespace s WHERE s.oid = c.reltablespace),
    'access method', (SELECT amname FROM pg_am a WHERE a.oid = c.relam),
    'partition key', CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END,
    'partition bound', pg_get_expr(c.relpartbound, c.oid),
    'inherits', (SELECT string_agg(format('%I.%I', pn.nspname, p.relname), ', ' ORDER BY i.inhseqno) FROM pg_inherits i
        JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace pn ON pn.oid = p.relnamespace WHERE i.inhrelid = c.oid),
    'of type', CASE WHEN c.reloftype <> 0 THEN format_type(c.reloftype, NULL) END,
    'definition', CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
    'populated', CASE WHEN c.relkind = 'm' THEN c.relispopulated::text END,
    'server', (SELECT quote_ident(s.srvname) FROM pg_foreign_table ft JOIN pg_foreign_server s ON s.oid = ft.ftserver WHERE ft.ftrelid = c.oid),
    'foreign options', (SELECT string_agg(o, ', ' ORDER BY o) FROM pg_foreign_table ft, unnest(ft.ftoptions) o WHERE ft.ftrelid = c.oid),
    'type', (SELECT format_type(s.seqtypid, NULL) FROM pg_sequence s WHERE s.seqrelid = c.oid),
    'start', (SELECT s.seqstart::text FROM pg_sequence s WHERE s.seqrelid = c.oid),
    'increment', (SELECT s.seqincrement::text FROM pg_sequence s WHERE s.seqrelid = c.oid),
    'minimum', (SELECT s.seqmin::text FROM pg_sequence s WHERE s.seqrelid = c.oid),
    'maximum', (SELECT s.seqmax::text FROM pg_sequence s WHERE s.seqrelid = c.oid),
    'cache', (SELECT s.seqcache::text FROM pg_sequence s WHERE s.seqrelid = c.oid),
    'cycle', (SELECT s.seqcycle::text FROM pg_sequence s WHERE s.seqrelid = c.oid),
    'owned by', CASE WHEN c.relkind = 'S' THEN (SELECT format('%I.%I.%I', tn.nspname, t.relname, a.attname) FROM pg_depend d
        JOIN pg_class t ON t.oid = d.refobjid JOIN pg_namespace tn ON tn.oid = t.relnamespace
        JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0 AND d.refclassid = 'pg_class'::regclass
            AND d.deptype IN ('a', 'i') LIMIT 1) END,
    'comment', coalesce(obj_description(c.oid, 'pg_class'),
        CASE WHEN c.relkind = 'c' THEN obj_description(c.reltype, 'pg_type') END))::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c') AND c.relpersistence <> 't' AND $user(n.nspname)$ AND $own(pg_class, c.oid)$;

SELECT 'column', format('%I.%I.%I', n.nspname, c.relname, a.attname), format('%I.%I', n.nspname, c.relname), json_build_object(
    'position', a.attnum::text,
    'type', format_type(a.atttypid, a.atttypmod),
    'collation', CASE WHEN a.attcollation <> t.typcollation THEN
        (SELECT format('%I.%I', ln.nspname, l.collname) FROM pg_collation l JOIN pg_namespace ln ON ln.oid = l.collnamespace
         WHERE l.oid = a.attcollation) END,
    'nullable', CASE WHEN a.attnotnull THEN 'no' ELSE 'yes' END,
    'default', CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END,
    'generated', CASE a.attgenerated WHEN 's' THEN 'stored: ' WHEN 'v' THEN 'virtual: ' END || pg_get_expr(d.adbin, d.adrelid),
    'identity', CASE a.attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'by default' END,
    'storage', CASE WHEN c.relkind IN ('r', 'p', 'm') THEN
        CASE a.attstorage WHEN 'p' THEN 'plain' WHEN 'e' THEN 'external' WHEN 'm' THEN 'main' ELSE 'extended' END END,
    'compression', nullif(to_jsonb(a) ->> 'attcompression', ''),
    'statistics target', nullif(to_jsonb(a) ->> 'attstattarget', '-1'),
    'options', (SELECT string_agg(o, ', ' ORDER BY o) FROM unnest(a.attoptions) o),
    'foreign options', (SELECT string_agg(o, ', ' ORDER BY o) FROM unnest(a.attfdwoptions) o),
    'inherited', CASE WHEN a.attinhcount > 0 THEN 'from ' || a.attinhcount || CASE WHEN a.attislocal THEN ', and local' ELSE '' END END,
    'privileges', nullif($acl(a.attacl, c, c.relowner)$, ''),
    'comment', col_description(c.oid, a.attnum))::text
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND c.relpersistence <> 't'
    AND $user(n.nspname)$ AND $own(pg_class, c.oid)$;

SELECT 'constraint', format('%I.%I.%I', n.nspname, c.relname, k.conname), format('%I.%I', n.nspname, c.relname), json_build_object(
    'definition', pg_get_constraintdef(k.oid),
    'validated', k.convalidated::text,
    'deferrable', CASE WHEN k.condeferrable THEN CASE WHEN k.condeferred THEN 'initially deferred' ELSE 'initially immediate' END END,
    'enforced', CASE WHEN to_jsonb(k) ->> 'conenforced' = 'false' THEN 'no' END,
    'inherited', CASE WHEN k.coninhcount > 0 THEN 'from ' || k.coninhcount || CASE WHEN k.conislocal THEN ', and local' ELSE '' END END,
    'comment', obj_description(k.oid, 'pg_constraint'))::text
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype <> 't' AND c.relpersistence <> 't' AND $user(n.nspname)$ AND $own(pg_class, c.oid)$ AND $own(pg_constraint, k.oid)$;

SELECT 'index', format('%I.%I', n.nspname, i.relname), format('%I.%I', tn.nspname, t.relname), json_build_object(
    'table', format('%I.%I', tn.nspname, t.relname),
    'definition', pg_get_indexdef(i.oid),
    'valid', x.indisvalid::text,
    'ready', x.indisready::text,
    'unique', x.indisunique::text,
    'primary', x.indisprimary::text,
    'clustered on', CASE WHEN x.indisclustered THEN 'yes' END,
    'replica identity', CASE WHEN x.indisreplident THEN 'yes' END,
    'owner', pg_get_userbyid(i.relowner),
    'tablespace', (SELECT spcname FROM pg_tablespace s WHERE s.oid = i.reltablespace),
    'attached to', (SELECT format('%I.%I', pn.nspname, p.relname) FROM pg_inherits h JOIN pg_class p ON p.oid = h.inhparent
        JOIN pg_namespace pn ON pn.oid = p.relnamespace WHERE h.inhrelid = i.oid),
    'statistics targets', (SELECT string_agg(a.attname || ' ' || (to_jsonb(a) ->> 'attstattarget'), ', ' ORDER BY a.attnum) FROM pg_attribute a
        WHERE a.attrelid = i.oid AND coalesce(to_jsonb(a) ->> 'attstattarget', '-1') <> '-1'),
    'comment', obj_description(i.oid, 'pg_class'))::text
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_namespace n ON n.oid = i.relnamespace
JOIN pg_class t ON t.oid = x.indrelid JOIN pg_namespace tn ON tn.oid = t.relnamespace
WHERE t.relpersistence <> 't' AND $user(n.nspname)$ AND $own(pg_class, t.oid)$ AND $own(pg_class, i.oid)$;

-- when: pg_trigger WHERE NOT tgisinternal
SELECT 'trigger', format('%I.%I.%I', n.nspname, c.relname, g.tgname), format('%I.%I', n.nspname, c.relname), json_build_object(
    'definition', pg_get_triggerdef(g.oid),
    'enabled', CASE g.tgenabled WHEN 'O' THEN 'origin' WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'replica' WHEN 'A' THEN 'always' END,
    'comment', obj_description(g.oid, 'pg_trigger'))::text
FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT g.tgisinternal AND c.relpersistence <> 't' AND $user(n.nspname)$ AND $own(pg_class, c.oid)$ AND $own(pg_trigger, g.oid)$;

-- The triggers behind foreign keys have numbered names; what can change is whether they are enabled.
-- when: pg_trigger WHERE tgisinternal
SELECT 'constraint trigger', format('%I.%I.%I on %I.%I: %s', kn.nspname, kc.relname, k.conname, n.nspname, c.relname, p.proname),
    format('%I.%I', kn.nspname, kc.relname), json_build_object(
    'enabled', CASE g.tgenabled WHEN 'O' THEN 'origin' WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'replica' WHEN 'A' THEN 'always' END)::text
FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_constraint k ON k.oid = g.tgconstraint JOIN pg_class kc ON kc.oid = k.conrelid JOIN pg_namespace kn ON kn.oid = kc.relnamespace
JOIN pg_proc p ON p.oid = g.tgfoid
WHERE g.tgisinternal AND c.relpersistence <> 't' AND $user(n.nspname)$ AND $own(pg_class, c.oid)$;

-- when: pg_rewrite WHERE ev_class >= 16384 AND rulename <> '_RETURN'
SELECT 'rule', format('%I.%I.%I', n.nspname, c.relname, r.rulename), format('%I.%I', n.nspname, c.relname), json_build_object(
    'definition', pg_get_ruledef(r.oid),
    'enabled', CASE r.ev_enabled WHEN 'O' THEN 'origin' WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'replica' WHEN 'A' THEN 'always' END,
    'comment', obj_description(r.oid, 'pg_rewrite'))::text
FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE r.rulename <> '_RETURN' AND $user(n.nspname)$ AND $own(pg_class, c.oid)$ AND $own(pg_rewrite, r.oid)$;

-- when: pg_policy
SELECT 'policy', format('%I.%I.%I', n.nspname, c.relname, p.polname), format('%I.%I', n.nspname, c.relname), json_build_object(
    'command', CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
    'permissive', p.polpermissive::text,
    'roles', (SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', '
        ORDER BY CASE r WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END) FROM unnest(p.polroles) r),
    'using', pg_get_expr(p.polqual, p.polrelid),
    'with check', pg_get_expr(p.polwithcheck, p.polrelid),
    'comment', obj_description(p.oid, 'pg_policy'))::text
FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE $user(n.nspname)$ AND $own(pg_class, c.oid)$;

-- when: pg_statistic_ext
SELECT 'statistics', format('%I.%I', n.nspname, s.stxname), (SELECT format('%I.%I', tn.nspname, c.relname) FROM pg_class c
        JOIN pg_namespace tn ON tn.oid = c.relnamespace WHERE c.oid = s.stxrelid), json_build_object(
    'definition', pg_get_statisticsobjdef(s.oid),
    'owner', pg_get_userbyid(s.stxowner),
    'statistics target', nullif(to_jsonb(s) ->> 'stxstattarget', '-1'),
    'comment', obj_description(s.oid, 'pg_statistic_ext'))::text
FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE $user(n.nspname)$ AND $own(pg_statistic_ext, s.oid)$
