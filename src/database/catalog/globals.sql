-- What belongs to the database as a whole. The database goes by a fixed name, so that copies under another name compare.

SELECT 'database' AS kind, 'current_database()' AS name, '' AS parent, json_build_object(
    'owner', pg_get_userbyid(d.datdba),
    'privileges', $acl(d.datacl, d, d.datdba)$,
    'encoding', pg_encoding_to_char(d.encoding),
    'collate', d.datcollate,
    'ctype', d.datctype,
    'locale', coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'),
    'locale provider', to_jsonb(d) ->> 'datlocprovider',
    'collation version', to_jsonb(d) ->> 'datcollversion',
    'connections allowed', d.datallowconn::text,
    'connection limit', nullif(d.datconnlimit, -1)::text,
    'comment', shobj_description(d.oid, 'pg_database'))::text AS properties
FROM pg_database d WHERE d.datname = current_database();

-- when: pg_db_role_setting
SELECT 'setting', CASE s.setrole WHEN 0 THEN 'of the database' ELSE 'of ' || quote_ident(pg_get_userbyid(s.setrole)) || ' in the database' END || ': '
        || split_part(v, '=', 1), '', json_build_object('value', substr(v, strpos(v, '=') + 1))::text
FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) v WHERE d.datname = current_database();

SELECT 'extension', quote_ident(e.extname), '', json_build_object(
    'version', e.extversion,
    'schema', (SELECT quote_ident(n.nspname) FROM pg_namespace n WHERE n.oid = e.extnamespace),
    'owner', pg_get_userbyid(e.extowner),
    'comment', obj_description(e.oid, 'pg_extension'))::text
FROM pg_extension e;

SELECT 'language', quote_ident(l.lanname), '', json_build_object(
    'owner', pg_get_userbyid(l.lanowner),
    'privileges', $acl(l.lanacl, l, l.lanowner)$,
    'trusted', l.lanpltrusted::text,
    'comment', obj_description(l.oid, 'pg_language'))::text
FROM pg_language l WHERE l.lanispl;

-- when: pg_event_trigger
SELECT 'event trigger', quote_ident(t.evtname), '', json_build_object(
    'owner', pg_get_userbyid(t.evtowner),
    'event', t.evtevent,
    'tags', (SELECT string_agg(x, ', ' ORDER BY x) FROM unnest(t.evttags) x),
    'function', t.evtfoid::regproc::text,
    'enabled', CASE t.evtenabled WHEN 'O' THEN 'origin' WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'replica' ELSE 'always' END,
    'comment', obj_description(t.oid, 'pg_event_trigger'))::text
FROM pg_event_trigger t WHERE $own(pg_event_trigger, t.oid)$;

-- when: pg_default_acl
SELECT 'default privileges', 'of ' || quote_ident(pg_get_userbyid(d.defaclrole)) || CASE WHEN d.defaclnamespace <> 0 THEN ' in ' ||
        (SELECT quote_ident(n.nspname) FROM pg_namespace n WHERE n.oid = d.defaclnamespace) ELSE '' END || ' on ' ||
        CASE d.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'functions' WHEN 'T' THEN 'types'
            WHEN 'n' THEN 'schemas' ELSE 'large objects' END, '', json_build_object('privileges', $acl(d.defaclacl, r, d.defaclrole)$)::text
FROM pg_default_acl d;

-- when: pg_publication
SELECT 'publication', quote_ident(p.pubname), '', json_build_object(
    'owner', pg_get_userbyid(p.pubowner),
    'all tables', p.puballtables::text,
    'operations', concat_ws(', ', CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubupdate THEN 'update' END,
        CASE WHEN p.pubdelete THEN 'delete' END, CASE WHEN p.pubtruncate THEN 'truncate' END),
    'through the root', p.pubviaroot::text,
    'tables', CASE WHEN NOT p.puballtables THEN (SELECT string_agg(format('%I.%I', t.schemaname, t.tablename)
        || coalesce(' ' || (to_jsonb(t) ->> 'attnames'), '') || coalesce(' where ' || (to_jsonb(t) ->> 'rowfilter'), ''), ', '
        ORDER BY t.schemaname, t.tablename) FROM pg_publication_tables t WHERE t.pubname = p.pubname) END,
    'comment', obj_description(p.oid, 'pg_publication'))::text
FROM pg_publication p WHERE $own(pg_publication, p.oid)$;

-- Connection strings carry passwords, so they are not read.
-- when: pg_subscription
SELECT 'subscription', quote_ident(s.subname), '', json_build_object(
    'owner', pg_get_userbyid(s.subowner),
    'enabled', s.subenabled::text,
    'slot', s.subslotname,
    'publications', (SELECT string_agg(quote_ident(x), ', ' ORDER BY x) FROM unnest(s.subpublications) x))::text
FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database();

-- when: pg_foreign_data_wrapper
SELECT 'foreign data wrapper', quote_ident(w.fdwname), '', json_build_object(
    'owner', pg_get_userbyid(w.fdwowner),
    'privileges', $acl(w.fdwacl, F, w.fdwowner)$,
    'functions', concat_ws(', ', w.fdwhandler::regproc, w.fdwvalidator::regproc),
    'options', (SELECT string_agg(o, ', ' ORDER BY o) FROM unnest(w.fdwoptions) o),
    'comment', obj_description(w.oid, 'pg_foreign_data_wrapper'))::text
FROM pg_foreign_data_wrapper w WHERE $own(pg_foreign_data_wrapper, w.oid)$;

-- when: pg_foreign_server
SELECT 'foreign server', quote_ident(s.srvname), '', json_build_object(
    'owner', pg_get_userbyid(s.srvowner),
    'privileges', $acl(s.srvacl, S, s.srvowner)$,
    'wrapper', (SELECT quote_ident(w.fdwname) FROM pg_foreign_data_wrapper w WHERE w.oid = s.srvfdw),
    'type and version', nullif(concat_ws(' ', s.srvtype, s.srvversion), ''),
    'options', (SELECT string_agg(o, ', ' ORDER BY o) FROM unnest(s.srvoptions) o),
    'comment', obj_description(s.oid, 'pg_foreign_server'))::text
FROM pg_foreign_server s WHERE $own(pg_foreign_server, s.oid)$;

-- Options carry passwords: their names are shown and the values enter as a digest.
-- when: pg_foreign_server
SELECT 'user mapping', format('%s on %I', CASE WHEN m.umuser = 0 THEN 'PUBLIC' ELSE quote_ident(m.usename) END, m.srvname), '', json_build_object(
    'options', (SELECT string_agg(split_part(o, '=', 1), ', ' ORDER BY o) FROM unnest(m.umoptions) o),
    'digest of the options', (SELECT encode(sha256(convert_to(string_agg(o, ',' ORDER BY o), 'UTF8')), 'hex') FROM unnest(m.umoptions) o))::text
FROM pg_user_mappings m;

-- when: pg_largeobject_metadata
SELECT 'large object', l.oid::text, '', json_build_object(
    'owner', pg_get_userbyid(l.lomowner),
    'privileges', $acl(l.lomacl, L, l.lomowner)$,
    'comment', obj_description(l.oid, 'pg_largeobject'))::text
FROM pg_largeobject_metadata l;

-- when: pg_am WHERE oid >= 16384
SELECT 'access method', quote_ident(m.amname), '', json_build_object('handler', m.amhandler::text, 'type', m.amtype::text)::text
FROM pg_am m WHERE m.oid >= 16384 AND $own(pg_am, m.oid)$;

-- when: pg_transform
SELECT 'transform', format('for %s language %I', format_type(t.trftype, NULL), l.lanname), '', json_build_object(
    'functions', concat_ws(', ', t.trffromsql::regprocedure, t.trftosql::regprocedure))::text
FROM pg_transform t JOIN pg_language l ON l.oid = t.trflang WHERE $own(pg_transform, t.oid)$;

-- when: (SELECT 1 FROM pg_seclabel UNION ALL SELECT 1 FROM pg_shseclabel) labels
SELECT 'security label', concat_ws(' ', s.objtype, s.objname, 'by', s.provider), '', json_build_object('label', s.label)::text
FROM pg_seclabels s WHERE s.objtype NOT IN ('role', 'tablespace')
