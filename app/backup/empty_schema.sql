-- Drops all that the schema `public` has, but what belongs to an extension: only an extension's owner may drop that, and a
-- restore finds it in its place. Views go before tables, and sequences after those that own them.
DO $empty$
DECLARE
  found record;
BEGIN
  FOR found IN
    SELECT
      c.oid::regclass AS name,
      CASE c.relkind
        WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE'
      END AS kind
    FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
      AND NOT EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
      )
    ORDER BY c.relkind IN ('v', 'm') DESC, c.relkind = 'S'
  LOOP
    IF to_regclass(found.name::text) IS NOT NULL THEN -- not gone with another
      EXECUTE format('DROP %s %s CASCADE', found.kind, found.name);
    END IF;
  END LOOP;
  FOR found IN
    SELECT t.oid::regtype AS name
    FROM pg_type t
    WHERE t.typnamespace = 'public'::regnamespace AND t.typtype IN ('e', 'd')
      AND NOT EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
      )
  LOOP
    EXECUTE format('DROP TYPE %s CASCADE', found.name);
  END LOOP;
  FOR found IN
    SELECT p.oid::regprocedure AS name
    FROM pg_proc p
    WHERE p.pronamespace = 'public'::regnamespace AND p.prokind IN ('f', 'p')
      AND NOT EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
      )
  LOOP
    EXECUTE format('DROP ROUTINE %s CASCADE', found.name);
  END LOOP;
END
$empty$;
